# The token with which a service and its sidecar are registered (`token` in the service's definition).

service "{{service}}" {
  policy = "write"
}

service "{{service}}-sidecar-proxy" {
  policy = "write"
}

# Consul's agent prepares every sidecar's configuration for its own xDS with this token, used or not, and asks again and
# again for what it may not read. This is also what a service identity of Consul's grants.
service_prefix "" {
  policy = "read"
}

node_prefix "" {
  policy = "read"
}
