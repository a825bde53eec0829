# A private PostgreSQL cluster in a new folder: says where it is, does what each line tells it that it is sent, and stops
# and removes it when its standard input ends, however the process at the other end came to its end.
# Arguments: the folder with the server's programs.
set -eu
PATH="$1:$PATH"
folder=$(mktemp -d)
cluster() { pg_ctl --pgdata "$folder/data" --log "$folder/log" --wait --silent "$@" || cat "$folder/log" >&2; }
# Sends a signal to all processes of the server.
signal() {
    local server
    server=$(head -n 1 "$folder/data/postmaster.pid")
    # The first of them starts no other meanwhile.
    kill -s "$1" "$server"
    # One that has ended meanwhile is none.
    pgrep -P "$server" | xargs kill -s "$1" 2>/dev/null || true
}
trap 'signal CONT || true; cluster stop --mode immediate || true; rm -rf "$folder"' EXIT

initdb --pgdata "$folder/data" --username tests --auth trust --encoding UTF8 --no-locale --no-instructions >"$folder/log"
cluster start --options "-k $folder -c listen_addresses= -c max_connections=300"
echo "$folder"
while read -r order; do
    case $order in
        restart) cluster restart --mode immediate ;;
        suspend) signal STOP ;;
        resume) signal CONT ;;
    esac
    echo "$folder"
done
