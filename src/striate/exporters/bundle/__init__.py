"""Bundle `NAME.striate`: a network with everything that its answers depend on."""
