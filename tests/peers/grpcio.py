"""A greeter of the gRPC library for Python that does what it is asked for by name. Messages are read and written by hand."""
import sys
import time
from concurrent import futures

import grpc


def name_of(request):
    # Field 1, a string of less than 128 bytes.
    return request[2:2 + request[1]].decode()


def reply(text):
    data = text.encode()
    return b"\x0a" + bytes([len(data)]) + data


def previous(context):
    return dict(context.invocation_metadata()).get("grpc-previous-rpc-attempts", "none")


def act(name, context):
    if name == "unavailable" or (name == "third" and previous(context) != "2"):
        context.abort(grpc.StatusCode.UNAVAILABLE, "as told")
    if name == "not found":
        context.abort(grpc.StatusCode.NOT_FOUND, "as told")
    if name == "pushback":
        context.set_trailing_metadata((("grpc-retry-pushback-ms", "300000"),))
        context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "as told")
    if name == "hang":
        while context.is_active():
            time.sleep(0.005)


def say_hello(request, context):
    name = name_of(request)
    act(name, context)
    if name == "left":
        return reply(f"{context.time_remaining():.3f}")
    return reply(f"{name} {previous(context)}")


def say_hellos(request, context):
    for n in range(2):
        yield reply(str(n))
    act(name_of(request), context)


handlers = {
    "SayHello": grpc.unary_unary_rpc_method_handler(say_hello),
    "SayHellos": grpc.unary_stream_rpc_method_handler(say_hellos),
}
server = grpc.server(futures.ThreadPoolExecutor(max_workers=16))
server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("greeter.Greeter", handlers),))
server.add_insecure_port(sys.argv[1])
server.start()
server.wait_for_termination()
