# The token of one Consul agent, server or client (acl.tokens.agent), for its own upkeep.

# Its node's entry in the catalog, and its checks.
node "{{node}}" {
  policy = "write"
}

# What it compares with its own services.
service_prefix "" {
  policy = "read"
}
