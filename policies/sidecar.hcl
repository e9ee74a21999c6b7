# The token of one sidecar's Envoy (`causeway envoy --sidecar-for ID --token-file FILE`).

# To be the service: its configuration and its leaf certificate.
service "{{service}}" {
  policy = "write"
}

# To find the sidecar's registration, and to send others elsewhere while its Envoy is drained (maintenance mode).
service "{{service}}-sidecar-proxy" {
  policy = "write"
}

# The datacenter and the node's name, for Envoy's statistics.
agent "{{node}}" {
  policy = "read"
}
