#!/usr/bin/perl
# A worker of einhorn, as its README describes one: the socket is in EINHORN_FD_0, it
# says worker:ack when it is ready, and ends on SIGUSR2 when it has no client.
use strict;
use warnings;
use IO::Select;
use IO::Socket::INET;
use IO::Socket::UNIX;

die "not a worker of einhorn\n" unless ($ENV{EINHORN_MASTER_PID} // 0) == getppid;
die "got no socket, or more than one\n" unless ($ENV{EINHORN_FD_COUNT} // 0) == 1;
my $socket = IO::Socket::INET->new_from_fd($ENV{EINHORN_FD_0}, "+<") or die "take the socket: $!\n";
$socket->blocking(0); # the other generation may be faster
my $leave = 0;
$SIG{USR2} = sub { $leave = 1 };

my $master = IO::Socket::UNIX->new($ENV{EINHORN_SOCK_PATH}) or die "reach the master: $!\n";
print $master qq({"command":"worker:ack","pid":$$}\n);
close $master;

my $waits = IO::Select->new($socket);
while (!$leave) {
    next unless $waits->can_read(0.1);
    my $client = $socket->accept or next;
    $client->blocking(1);
    my $request = "";
    while ($request !~ /\r\n\r\n/) {
        my $n = sysread $client, $request, 4096, length $request;
        next if !defined $n && $!{EINTR};
        last unless $n;
    }
    syswrite $client, "HTTP/1.1 200 OK\r\nX-Version: @VERSION@\r\nContent-Length: 3\r\nConnection: close\r\n\r\nok\n";
    $client->shutdown(1);
    close $client;
}
