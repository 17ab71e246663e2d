#!/usr/bin/python3
# uvicorn takes the first socket of sd_listen_fds(3), which is number 3, and cannot
# say READY=1. When it is told to end it closes what it has accepted and not read
# a request from, so it stops to accept a moment before.
import asyncio
import os
import sys

import uvicorn


class Server(uvicorn.Server):
    async def shutdown(self, sockets=None):
        for server in self.servers:
            server.close()
        await asyncio.sleep(0.5)
        await super().shutdown(sockets)


sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + "/app")
Server(uvicorn.Config("hello:app", fd=3)).run()
