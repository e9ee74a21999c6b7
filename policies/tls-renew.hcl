# The token of `causeway tls renew --reload`, in /etc/causeway/tls-renew.token where the timer runs it.

# To have the local Consul agent read its certificates again.
agent "{{node}}" {
  policy = "write"
}
