#!/usr/bin/env bash
# zensical 0.0.73: with the plugin `offline`, every page loads a script over the network.
#
# A good guess: "the site search works even when accessed from the file system" (Zensical's page on
# offline usage), so a site built with `offline` needs nothing but its own files.
# Behaviour: the search index comes as a script, as it should; but each page then has a `<script>` from
# unpkg.com in its head, which the page had not without the plugin, and without a network the search
# answers "Search is unavailable". Material for MkDocs does the same, and has the plugin `privacy`,
# which downloads the script at build; Zensical has none.
# Seen:
#   without: no script from elsewhere
#   with offline: <script src="https://unpkg.com/iframe-worker/shim"
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet "zensical==0.0.73"
cd "$folder"
mkdir docs
echo "# A page" >docs/index.md
built() { # PLUGIN...
  printf 'site_name: A site\nplugins:\n' >mkdocs.yml
  printf -- '  - %s\n' "$@" >>mkdocs.yml
  venv/bin/zensical build --clean --strict --config-file mkdocs.yml >/dev/null 2>&1
  grep --only-matching '<script src="http[^"]*"' site/index.html || true
}
without=$(built search)
with=$(built search offline)
echo "without: ${without:-no script from elsewhere}"
echo "with offline: $with"
[ -z "$without" ]
[ "$with" = '<script src="https://unpkg.com/iframe-worker/shim"' ]
