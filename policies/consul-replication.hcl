# The token with which a secondary datacenter's servers speak to the primary (acl.tokens.replication).

# Policies and tokens, with their secrets: that takes write.
acl = "write"

# Configuration entries, the mesh gateways of each datacenter, and a signature for the secondary's own CA.
operator = "write"

# Configuration entries and intentions of every service.
service_prefix "" {
  policy     = "read"
  intentions = "read"
}
