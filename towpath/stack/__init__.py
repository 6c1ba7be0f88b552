"""The parts as local processes: what `towpath up` starts where Docker is not.

Pure: `lock` (which files the parts are made of), `config` (every part's settings, written once), `parts` (the
processes they become), `spec` (what the supervisor is told), `probes` (what "ready" means on the wire),
`findings` (what `doctor` concludes). I/O twins: `http` (fetches), `cache`, `supervisor` (runs the processes),
`client` (talks to it), `machine` (ports, disk, memory), `postgres`, `up` (puts all of it together).
"""
