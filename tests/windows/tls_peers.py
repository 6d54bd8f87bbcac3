#!/usr/bin/python3
"""relay.exe with TLS under Wine meets Python's: wss, and certificates asked for. BUILD is where that relay.exe is; run by mbedtls.sh."""
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "peers"))
import windows_socket  # noqa: E402
from windows import run_all  # noqa: E402

run_all([windows_socket.wss_server, windows_socket.tls_server])
