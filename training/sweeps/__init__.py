"""Many runs from one command: planned and checked, launched, resumed, watched and evaluated."""
