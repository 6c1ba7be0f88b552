"""The saga of three steps that `bench.saga` runs beside its peers: a seat, a room, the money."""
