"""The gRPC server, its command line and its processes. The only layer that knows protobuf and the time."""
