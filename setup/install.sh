#!/usr/bin/env bash
# Make ./.venv ready: Python packages at the tested versions and the libraries that headless rendering needs.
# Safe to run again: a second run only checks. PYTHON=/path/to/python3.12 chooses the interpreter.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
PATH=$PATH:/usr/sbin:/sbin # Debian keeps ldconfig from ordinary users

say() { printf '\033[1m[install]\033[0m %s\n' "$*"; }
fail() { printf 'error: %s\n  cure: %s\n' "$1" "$2" >&2; exit 7; }

is_new_enough() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }

find_python() {
  local candidate
  for candidate in ${PYTHON:-} python3 python3.13 python3.12 python3.11; do
    if command -v "$candidate" >/dev/null 2>&1 && is_new_enough "$candidate"; then
      command -v "$candidate"
      return
    fi
  done
  fail "No Python 3.11 or newer was found." "Install one (Debian, Ubuntu: apt-get install python3 python3-venv) or set PYTHON=/path/to/python3."
}

apt_install() { # apt_install WHY PACKAGE...
  local why=$1
  shift
  if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null 2>&1; then
    fail "$why" "sudo apt-get update && sudo apt-get install --no-install-recommends -y $*"
  fi
  say "$why Installing: $*"
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install --no-install-recommends -y -qq "$@" >/dev/null
}

has_library() { grep -q "$1" <<<"$(ldconfig -p)"; }

ensure_rendering() {
  # A GPU driver brings its own EGL vendor; without one Mesa renders in software.
  local vendor=libEGL_mesa.so
  if command -v nvidia-smi >/dev/null 2>&1 && has_library libEGL_nvidia.so; then vendor=libEGL_nvidia.so; fi
  if has_library libEGL.so.1 && has_library libGL.so.1 && has_library "$vendor"; then return; fi
  apt_install "Headless rendering needs EGL and OpenGL libraries." libegl1 libgl1 libgl1-mesa-dri libegl-mesa0
}

ensure_venv() {
  if [ -x .venv/bin/python ] && is_new_enough .venv/bin/python; then return; fi
  local python
  python=$(find_python)
  say "Creating .venv with $("$python" --version)"
  "$python" -c 'import ensurepip, venv' 2>/dev/null ||
    apt_install "This Python cannot make virtual environments." "python$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')-venv"
  rm -rf .venv
  "$python" -m venv .venv
}

install_packages() {
  local target=".[dev]" constraints=setup/constraints.txt
  say "Installing Python packages (the first time downloads about 3 GB)"
  if .venv/bin/python -m pip install --quiet --disable-pip-version-check uv &&
    .venv/bin/python -m uv pip install --quiet --python .venv/bin/python --editable "$target" --constraints "$constraints"; then
    return
  fi
  say "uv is not available here or could not resolve; falling back to pip (slower)"
  .venv/bin/python -m pip install --quiet --disable-pip-version-check --editable "$target" --constraint "$constraints"
}

# Import once what programs import, so that it is compiled: otherwise the first start takes three times as long, as
# does every start, of environment processes too, where PYTHONDONTWRITEBYTECODE is set, in every environment process too.
compile_packages() {
  env -u PYTHONDONTWRITEBYTECODE .venv/bin/python - <<'PYTHON' || say "The packages could not be imported; setup/doctor.py says more"
import torch, torchvision, timm  # before MuJoCo: the other order can crash
import dm_control.suite, hydra, imageio, matplotlib.pyplot, omegaconf, rich.progress, rliable.library, safetensors.torch
import scipy.stats
PYTHON
}

wanted=$(cat pyproject.toml setup/constraints.txt setup/install.sh | sha256sum | cut -d' ' -f1)
ensure_rendering
ensure_venv
stamp=.venv/.samg-installed
if [ "$(cat "$stamp" 2>/dev/null)" = "$wanted $PWD" ]; then
  say "Everything is installed (.venv is up to date)"
  exit 0
fi
started=$SECONDS
install_packages
compile_packages
echo "$wanted $PWD" >"$stamp"
say "Installed in $((SECONDS - started)) s"
