# The token with which a service and its sidecar are registered (`token` in the service's definition).

service "{{service}}" {
  policy = "write"
}

service "{{service}}-sidecar-proxy" {
  policy = "write"
}
