# For other scripts to source.

# package COMMAND NAME...: installs Debian packages where the command is missing that they bring.
package() {
    local command=$1
    shift
    # Debian keeps servers away from the PATH of users, and PostgreSQL's from everybody's.
    if PATH=$PATH:/usr/sbin command -v "$command" >/dev/null; then return; fi
    if compgen -G "/usr/lib/postgresql/*/bin/$command" >/dev/null; then return; fi
    if ! command -v apt-get >/dev/null; then
        echo "$command is missing, and there is no apt-get to install $* with: see to it that it is on PATH" >&2
        exit 1
    fi
    local root=()
    if [ "$(id -u)" -ne 0 ]; then root=(sudo); fi
    echo "installing $*"
    "${root[@]}" apt-get update -qq
    "${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null
}
