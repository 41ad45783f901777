"""An independent client: registers, reads, changes its status, leaves, as the words on its input say."""

import asyncio
import sys

from py_eureka_client import eureka_basic as eureka

SERVER = sys.argv[1]
INSTANCE = eureka.Instance(
    instanceId="python-1",
    app="USERS",
    hostName="python.internal",
    ipAddr="10.0.0.77",
    port=eureka.PortWrapper(port=8077, enabled=True),
    securePort=eureka.PortWrapper(port=8477, enabled=True),
    vipAddress="users.vip",
    secureVipAddress="users.svip",
    status="UP",
    metadata={"zone": "eu-7"},
    leaseInfo=eureka.LeaseInfo(),
)


async def read():
    found = await eureka.get_applications(SERVER)
    words = []
    for application in found.applications:
        for instance in application.instances:
            words.append(f"{application.name}={instance.ipAddr}:{instance.port.port}:{instance.status}")
    return f"{found.appsHashcode} {' '.join(sorted(words))}"


async def main():
    for line in sys.stdin:
        word = line.strip()
        said = "done"
        if word == "register":
            await eureka.register(SERVER, INSTANCE)
        elif word == "heartbeat":
            await eureka.send_heartbeat(SERVER, "USERS", "python-1", 1)
        elif word == "out":
            await eureka.status_update(SERVER, "USERS", "python-1", 2)
        elif word == "cancel":
            await eureka.cancel(SERVER, "USERS", "python-1")
        elif word == "read":
            said = await read()
        print(said, flush=True)


asyncio.run(main())
