#!/usr/bin/node
// The first socket of sd_listen_fds(3) is number 3.
const server = require("http").createServer((request, response) => {
  if (!server.listening) response.shouldKeepAlive = false;
  response.writeHead(200, { "X-Version": "@VERSION@" });
  response.end("ok\n");
});
server.listen({ fd: 3 });
process.on("SIGTERM", () => server.close());
