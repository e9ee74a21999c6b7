# The token of one Causeway agent. It reads the catalog and writes nothing: leaf certificates are asked for with the
# tokens of the Envoys. It must be a global token, since other datacenters are asked with it as well.

# Where everything runs: without, Consul leaves instances out without a word.
node_prefix "" {
  policy = "read"
}

# What there is, how it is reached (discovery chains, gateways, federation) and who may speak to whom.
service_prefix "" {
  policy     = "read"
  intentions = "read"
}

# Consul's own settings on this machine: datacenter, DNS domain, default policy.
agent "{{node}}" {
  policy = "read"
}
