"""Calls a greeter with the gRPC library for Python. On its input one JSON object a line: an address, a service config or null, and calls as
[method, name]. For each line it writes the codes that the calls ended with, as a JSON list."""
import json
import sys

import grpc


def request(name):
    data = name.encode()
    return b"\x0a" + bytes([len(data)]) + data


def code_of(call):
    try:
        call()
        return 0
    except grpc.RpcError as error:
        return error.code().value[0]


for line in sys.stdin:
    case = json.loads(line)
    # A channel of its own, with connections and a throttle of its own.
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.service_config_disable_resolution", 1)]
    if case["config"] is not None:
        options.append(("grpc.service_config", json.dumps(case["config"])))
    with grpc.insecure_channel(case["address"], options) as channel:
        codes = []
        for method, name in case["calls"]:
            path = "/greeter.Greeter/" + method
            if method == "SayHello":
                call = channel.unary_unary(path)
                codes.append(code_of(lambda: call(request(name), timeout=30, wait_for_ready=False)))
            else:
                stream = channel.unary_stream(path)
                codes.append(code_of(lambda: list(stream(request(name), timeout=30))))
    print(json.dumps(codes), flush=True)
