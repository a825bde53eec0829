# A private PostgreSQL cluster in a new folder: says where it is, restarts it for every line that it is sent, and stops
# and removes it when its standard input ends, however the process at the other end came to its end.
# Arguments: the folder with the server's programs.
set -eu
PATH="$1:$PATH"
folder=$(mktemp -d)
cluster() { pg_ctl --pgdata "$folder/data" --log "$folder/log" --wait --silent "$@" || cat "$folder/log" >&2; }
trap 'cluster stop --mode immediate || true; rm -rf "$folder"' EXIT

initdb --pgdata "$folder/data" --username tests --auth trust --encoding UTF8 --no-locale --no-instructions >"$folder/log"
cluster start --options "-k $folder -c listen_addresses= -c max_connections=300"
echo "$folder"
while read -r _; do
    cluster restart --mode immediate
    echo "$folder"
done
