#!/usr/bin/env bash
# MLflow with a real database: PostgreSQL, a folder of artifacts and the server, in the foreground; Ctrl-C ends all.
#
#   cluster/mlflow-server.sh FOLDER [--artifacts FOLDER] [--host ADDRESS] [--port NUMBER]
#                            [--allowed-hosts LIST] [--password-file FILE] [--workers NUMBER]
#
# FOLDER         database, artifacts and logs; the same folder again goes on where it was
# --artifacts    another folder for them, as an absolute path (default: FOLDER/artifacts)
# --host         where to listen (default: 127.0.0.1); others need a password
# --allowed-hosts  names under which others reach it, with the port: mlflow.lab:5000,mlflow.lab
# --password-file  a file, mode 0600, with the password (12 characters or more) of the user `admin`
# --workers      processes that answer (default: 2)
set -euo pipefail
umask 077

fail() { echo "mlflow-server.sh: $*" >&2; exit 1; }

case ${1:--} in -*) sed -n '2,13s/^# \{0,1\}//p' "$0" >&2; exit 2 ;; esac
mkdir -p "$1"
folder=$(realpath "$1"); shift
host=127.0.0.1 port=5000 artifacts=$folder/artifacts allowed_hosts='' password_file='' workers=2
while [ $# -gt 0 ]; do
  [ $# -ge 2 ] || fail "$1 needs a value"
  case $1 in
    --host) host=$2 ;;
    --port) port=$2 ;;
    --artifacts) artifacts=$2; [[ $2 = /* ]] || fail "--artifacts takes an absolute path, but got $2" ;;
    --allowed-hosts) allowed_hosts=$2 ;;
    --password-file) password_file=$2 ;;
    --workers) workers=$2 ;;
    *) fail "no option $1" ;;
  esac
  shift 2
done

# Debian keeps PostgreSQL's programs off PATH, in a folder a version.
newest=$(printf '%s\n' /usr/lib/postgresql/*/bin | sort -V | tail -n 1)
PATH=$PATH:$newest
command -v initdb >/dev/null || fail "there is no PostgreSQL here: apt-get install postgresql"
command -v mlflow >/dev/null || fail "there is no mlflow on PATH: activate the environment of tunekit first"
[ -n "$password_file" ] || case $host in
  127.* | localhost | ::1) ;;
  *) fail "--host $host lets others in: give --password-file, or stay on 127.0.0.1 and use a tunnel" ;;
esac

# PostgreSQL refuses to run as root; then it runs as the user that Debian's package brings.
owner=()
[ "$(id -u)" != 0 ] || owner=(setpriv --reuid=postgres --regid=postgres --init-groups --)
database=$folder/postgresql
# A socket's path may have 107 characters at most, so it lies elsewhere. Only this user can enter: no password.
socket=$(mktemp -d /tmp/tunekit-mlflow.XXXXXX)
ln -sfn "$socket" "$folder/socket"  # for pg_dump --host=FOLDER/socket
if [ ${#owner[@]} -gt 0 ]; then
  mkdir -p "$database"
  chmod o+x "$folder"
  chown postgres "$database" "$socket"
  "${owner[@]}" test -x "$folder" || fail "the user postgres cannot enter $folder, and PostgreSQL is not for root"
fi

postgres_id='' mlflow_id=''
# shellcheck disable=SC2317  # the trap calls it
end() {
  trap '' INT TERM HUP
  if [ -n "$mlflow_id" ]; then
    kill -TERM -- "-$mlflow_id" 2>/dev/null || true  # the whole group: MLflow's workers too
    wait "$mlflow_id" || true
  fi
  if [ -n "$postgres_id" ]; then
    kill -INT "$postgres_id" 2>/dev/null || true  # PostgreSQL's fast shutdown: ends connections, loses nothing
    wait "$postgres_id" || true
  fi
  rm -rf "$socket" "$folder/socket"
}
trap end EXIT
trap 'exit 130' INT TERM HUP

cd /  # a folder that PostgreSQL's user can read
if [ ! -e "$database/PG_VERSION" ]; then
  "${owner[@]}" initdb --pgdata="$database" --username=tunekit --auth=trust --encoding=UTF8 --no-locale \
    >"$folder/postgresql.log" 2>&1 || fail "PostgreSQL cannot begin: see $folder/postgresql.log"
fi
# Ctrl-C must reach this script alone, which ends both in order; and both end should it be killed.
setsid "${owner[@]}" setpriv --pdeathsig=INT postgres -D "$database" -k "$socket" \
  -c listen_addresses='' -c unix_socket_permissions=0700 >>"$folder/postgresql.log" 2>&1 &
postgres_id=$!
for _ in $(seq 300); do
  pg_isready --quiet --host="$socket" --username=tunekit && break
  kill -0 "$postgres_id" 2>/dev/null || fail "PostgreSQL does not start: see $folder/postgresql.log"
  sleep 0.1
done
for name in mlflow mlflow_auth; do
  psql --quiet --no-psqlrc --host="$socket" --username=tunekit --dbname=postgres --tuples-only \
    --command="select 1 from pg_database where datname = '$name'" | grep -q 1 \
    || createdb --host="$socket" --username=tunekit "$name"
done
# The driver is named: without it newer versions of SQLAlchemy look for another one.
address() { echo "postgresql+psycopg2://tunekit@/$1?host=$socket"; }

arguments=(--backend-store-uri "$(address mlflow)" --artifacts-destination "$artifacts"
  --host "$host" --port "$port" --workers "$workers")
# Without this list MLflow answers requests for localhost and private addresses only: a name gets HTTP 403.
[ -z "$allowed_hosts" ] || arguments+=(--allowed-hosts "localhost:$port,127.0.0.1:$port,$allowed_hosts")
if [ -n "$password_file" ]; then
  [ -e "$folder/secret-key" ] || head -c 32 /dev/urandom | od -An -tx1 | tr -d ' \n' >"$folder/secret-key"
  MLFLOW_FLASK_SERVER_SECRET_KEY=$(cat "$folder/secret-key")
  MLFLOW_AUTH_ADMIN_PASSWORD=$(cat "$password_file")
  MLFLOW_AUTH_CONFIG_PATH=$folder/login.ini
  export MLFLOW_FLASK_SERVER_SECRET_KEY MLFLOW_AUTH_ADMIN_PASSWORD MLFLOW_AUTH_CONFIG_PATH
  printf '[mlflow]\ndefault_permission = READ\nadmin_username = admin\ndatabase_uri = %s\n' \
    "$(address mlflow_auth)" >"$folder/login.ini"
  arguments+=(--app-name basic-auth)
fi
# MLflow's own background jobs (evaluation of language models) are not needed and cost processes.
export MLFLOW_DISABLE_TELEMETRY=true MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false
setsid setpriv --pdeathsig=TERM mlflow server "${arguments[@]}" >>"$folder/mlflow.log" 2>&1 &
mlflow_id=$!
echo "MLflow starts at http://$host:$port (log: $folder/mlflow.log); Ctrl-C ends it"
code=0
wait -n "$mlflow_id" "$postgres_id" || code=$?
fail "MLflow or PostgreSQL ended by itself (code $code): see $folder/mlflow.log and $folder/postgresql.log"
