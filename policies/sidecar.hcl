# The token of one sidecar's Envoy (`causeway envoy --sidecar-for ID --token-file FILE`).

# To be the service: its configuration and its leaf certificate.
service "{{service}}" {
  policy = "write"
}

# To find the sidecar's registration.
service "{{service}}-sidecar-proxy" {
  policy = "read"
}

# The datacenter and the node's name, for Envoy's statistics.
agent "{{node}}" {
  policy = "read"
}
