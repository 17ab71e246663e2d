def app(environ, start_response):
    start_response("200 OK", [("X-Version", "@VERSION@"), ("Content-Length", "3")])
    return [b"ok\n"]
