async def app(scope, receive, send):
    if scope["type"] != "http":
        return
    await send({"type": "http.response.start", "status": 200,
                "headers": [(b"x-version", b"@VERSION@"), (b"content-length", b"3")]})
    await send({"type": "http.response.body", "body": b"ok\n"})
