"""Tables, plots and one page out of any number of result files; the work behind ``report.py``.

``loading`` finds and reads what is there, ``grouping`` decides what may stand in one table, ``scores`` and
``curves`` compute, ``published`` holds figures of others, ``tables`` and ``plots`` lay out, and ``markdown``,
``records`` and ``html`` write.
"""

from evaluation.report.build import Report, ReportOptions, build_report, write_report

__all__ = ["Report", "ReportOptions", "build_report", "write_report"]
