# The token of a Causeway agent that replicates keys has this beside causeway-agent.hcl. Clients' writes are checked with
# the clients' own tokens before the agent carries them out with this one.

# Its own records: journal, positions, and which agent is active.
key_prefix "_sync/" {
  policy = "write"
}

# What it replicates: such a rule for each prefix of [sync]. No narrower rule may take anything below it away again, not
# even by `read`: Consul would leave those keys out of lists, and the agent takes no such list.
key_prefix "{{prefix}}" {
  policy = "write"
}

# The sessions behind the locks. Each lives on the node of the agent that made it; after a hand-over the next one renews and
# ends it, so that a right on the own node alone would cost every holder its lock.
session_prefix "" {
  policy = "write"
}

# To be found by the agents of other datacenters, and to prove to them what it is.
service "causeway-sync" {
  policy = "write"
}
