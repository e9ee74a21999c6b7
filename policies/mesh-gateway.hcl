# The token of one mesh gateway's Envoy (`causeway envoy --gateway mesh --register --token-file FILE`). The services
# behind it, Consul's own servers among them, are read by the Causeway agent.

# To register it, and to be it.
service "{{service}}" {
  policy = "write"
}

# The datacenter, the node's name and the address for the gateway's check.
agent "{{node}}" {
  policy = "read"
}
