"""The HTTP face: status over TCP, control over a unix socket.  Floor 6."""
