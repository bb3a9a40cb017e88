"""moto, an S3-compatible server, on a free port of loopback; ends when its standard input does."""

import sys

from moto.server import ThreadedMotoServer

server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
host, port = server.get_host_and_port()
print(f"ready http://{host}:{port}", flush=True)
sys.stdin.read()
server.stop()
