"""A client of ZooKeeper that was not written here: kazoo, told line by line what to do."""

import json
import logging
import os
import sys

from kazoo.client import KazooClient
from kazoo.exceptions import NoNodeError
from kazoo.retry import KazooRetry
from kazoo.security import make_digest_acl


# What it says of lost connections is what tests are about.
logging.disable(logging.WARNING)


def patient():
    return KazooRetry(max_tries=-1, delay=0.05, max_delay=0.3)


client = KazooClient(
    hosts=sys.argv[1],
    timeout=float(sys.argv[2]),
    connection_retry=patient(),
    command_retry=patient(),
    auth_data=[("digest", word) for word in sys.argv[3:]],
)
client.start(timeout=30)
published = {}


def publish(path, nodes):
    """Makes `nodes` all children of `path`."""
    before = published.setdefault(path, {})
    if not before:
        client.retry(client.ensure_path, path)
        before.update({name: None for name in client.retry(client.get_children, path)})

    def change():
        transaction = client.transaction()
        for name in before:
            if name not in nodes:
                transaction.delete(path + "/" + name)
        for name, data in nodes.items():
            if name not in before:
                transaction.create(path + "/" + name, data.encode())
        for result in transaction.commit() if transaction.operations else []:
            if isinstance(result, Exception):
                raise result

    client.retry(change)
    published[path] = dict(nodes)


def remove(path):
    published.pop(path, None)
    client.retry(client.delete, path, recursive=True)


def create(path, data, ephemeral=False, sequence=False, digest=None):
    acl = [make_digest_acl(*digest.split(":"), all=True)] if digest else None
    return client.retry(
        client.create, path, data.encode(), acl=acl, ephemeral=ephemeral, sequence=sequence, makepath=True
    )


def put(path, data):
    client.retry(client.set, path, data.encode())


def delete(path):
    client.retry(client.delete, path)


def read(path):
    """The children of `path`: data, session, and who may do what."""
    found = {}
    try:
        names = client.retry(client.get_children, path)
    except NoNodeError:
        return found
    for name in names:
        try:
            data, status = client.retry(client.get, path + "/" + name)
            acls, _ = client.retry(client.get_acls, path + "/" + name)
        except NoNodeError:
            continue
        acl = sorted(f"{one.id.scheme}:{one.perms}" for one in acls)
        found[name] = {"data": data.decode(), "session": status.ephemeralOwner, "acl": acl}
    return found


def sessions():
    """How many sessions there are, this one included."""
    for line in client.command(b"mntr").splitlines():
        if line.startswith("zk_global_sessions"):
            return int(line.split()[1])
    return -1


def die():
    os._exit(1)


actions = [publish, remove, create, put, delete, read, sessions, die]
known = {action.__name__: action for action in actions}
print(json.dumps("ready"), flush=True)
for line in sys.stdin:
    name, arguments = json.loads(line)
    print(json.dumps(known[name](**arguments)), flush=True)
