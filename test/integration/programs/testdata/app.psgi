sub { [200, ["X-Version" => "@VERSION@", "Content-Length" => 3], ["ok\n"]] }
