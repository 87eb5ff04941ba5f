# shellcheck shell=bash
# Sourced: the two stores from the compose file, where a Docker engine answers. Never executed by the project's tests.

# One project for each checkout (and test run), so that two do not share containers and volumes.
# shellcheck disable=SC2154  # from settings.sh
compose_project=log-writer-$checkout_name

docker_answers() { docker info >/dev/null 2>&1 && docker compose version >/dev/null 2>&1; }

# compose ARGUMENTS...
compose() {
  # shellcheck disable=SC2154  # from settings.sh
  docker compose --project-name "$compose_project" --file "$checkout/docker-compose.elasticsearch.yml" "$@"
}

# The store's published port, if it runs: `127.0.0.1:5432` → `5432`.
compose_port() {
  local address
  address=$(compose port "$1" "$2" 2>/dev/null) && [ -n "$address" ] && echo "${address##*:}"
}

# start_containers STORE...: a store that runs keeps its port.
start_containers() {
  TIMESCALEDB_PORT=${TIMESCALEDB_PORT:-$(compose_port timescaledb 5432 || free_port)}
  ELASTICSEARCH_PORT=${ELASTICSEARCH_PORT:-$(compose_port elasticsearch 9200 || free_port)}
  export TIMESCALEDB_PORT ELASTICSEARCH_PORT
  compose up --detach --wait "$@" >&2
}
