package config

import (
	"time"

	"github.com/upgraderd/upgraderd/fetcher"
	"github.com/upgraderd/upgraderd/fetcher/signature"
	"github.com/upgraderd/upgraderd/upgrader"
)

// Key is one setting of a .upgrade file, as documentation needs it.
type Key struct {
	Section, Name string
	// Value names what is written behind the =, such as TIME or COMMAND.
	Value string
	// List is set where several assignments add up.
	List bool
	// Required is set where a target must have it.
	Required bool
	// Unless is the key of a boolean in the same section that, where it says
	// no, makes a required key needless.
	Unless string
	// Default is what an absent or empty assignment means, as it would be
	// written; empty where nothing is assumed.
	Default string
	// Example is a value as it could stand in a file.
	Example string
	// Help says in Markdown what the key is for.
	Help string

	set setter
}

// checkMost is the TimeoutStartSec= of upgraderd-check@.service, which ends
// every check.
const checkMost = 10 * time.Minute

// Keys gives every key, in the order in which a person would write them.
func Keys() []Key {
	type target = upgrader.Target
	return []Key{
		{
			Section: "Upgrade", Name: "Unit", Value: "UNIT", Required: true, Example: "app.service",
			Help: "The service that runs the releases: a full unit name, which may be an instance, never a template. " +
				"No two targets may name the same unit, unless they have `Config=`. `upgraderd.service` is for a target of the name `upgraderd` only, see " +
				"[own-upgrade.md](own-upgrade.md).",
			set: text(func(t *target) *string { return &t.Unit }, unitName),
		},
		{
			Section: "Upgrade", Name: "Swap", Value: "auto|handover|restart|reload|none", Default: "auto", Example: "handover",
			Help: "How the unit moves to the next release. `handover` starts the new worker beside the old one, for units whose " +
				"`ExecStart=` is `upgraderd supervise`. `restart` restarts the unit; new connections wait in the backlog of its socket " +
				"meanwhile, and are refused where it opens its socket itself. `none` stages the release and waits for the operator; a " +
				"restart of the unit runs what ran before until then. `auto` finds out which of the first two the unit can do. " +
				"With `Config=` it is `reload`, which has the unit read its configuration again, or `restart` where the unit cannot.",
			set: word(func(t *target) *upgrader.Swap { return &t.Swap }, upgrader.SwapAuto, upgrader.SwapHandover, upgrader.SwapRestart, upgrader.SwapReload, upgrader.SwapNone),
		},
		{
			Section: "Upgrade", Name: "Dependents", Value: "UNIT…", List: true, Example: "app-worker.service",
			Help: "Units that upgraderd may start again where its swap took them down. systemd stops units with `Requires=`, `BindsTo=` or " +
				"`PartOf=` on a service with it, and after a start that failed it leaves them so, also when the release before comes back. Only those " +
				"that were active before the swap are started, and not what a person stopped meanwhile. Full unit names of any type but " +
				"`.target`, `.slice`, `.scope` and `.device`. A unit that shall be active whenever the service is needs no such right: name it in " +
				"`Wants=` of the service.",
			set: words(func(t *target) *[]string { return &t.Dependents }, dependent),
		},
		{
			Section: "Upgrade", Name: "Program", Value: "FILE", Default: "bin/%p", Example: "bin/app",
			Help: "The executable inside a release, relative to its top directory. An artifact that is a plain executable is put there; " +
				"an archive must hold it.",
			set: text(func(t *target) *string { return &t.Program }, inside),
		},
		{
			Section: "Upgrade", Name: "Config", Value: "FILE", Example: "nginx.conf",
			Help: "Says that the releases are configurations of the unit, which is reloaded instead of upgraded: the file inside a release, relative to its " +
				"top directory, where an artifact that is a plain file is put, or what an archive must hold, which may be a directory. The unit reads " +
				"it below `/var/lib/upgraderd/%p/current/`; see [config](config.md).",
			set: text(func(t *target) *string { return &t.Config }, inside),
		},
		{
			Section: "Upgrade", Name: "Check", Value: "COMMAND", Example: "bin/app --self-test",
			Help: "A command that must exit with status 0 before a staged release is swapped in. It runs in a sandbox, in the release's top " +
				"directory, with none of the service's rights. A name with no leading `/` is a file of the release, one with it a program of the host. Words are split " +
				"and quoted as in `ExecStart=`, but there are no prefixes and no variables, and no shell takes part.",
			set: setCheck,
		},
		{
			Section: "Upgrade", Name: "CheckTimeoutSec", Value: "TIME", Default: "30s", Example: "2min",
			Help: "How long `Check=` may take, at most 10min. After that the release counts as failed.",
			set:  span(func(t *target) *time.Duration { return &t.CheckTimeout }, time.Microsecond, checkMost),
		},
		{
			Section: "Upgrade", Name: "InstancesMax", Value: "NUMBER", Default: "3", Example: "5",
			Help: "How many releases stay on disk, from 2 (the current one and the one before it) to 100. The running release and the one " +
				"that a rollback returns to are never removed.",
			set: count(func(t *target) *int { return &t.InstancesMax }, 2, 100),
		},
		{
			Section: "Upgrade", Name: "KnownBadSec", Value: "TIME", Example: "7d",
			Help: "How long a release that was refused or rolled back is not tried again. By default it is not until `upgraderd forgive` says so, or " +
				"until the source offers other bytes. The time that upgraderd runs counts, whatever the host's clock says.",
			set: span(func(t *target) *time.Duration { return &t.KnownBad }, time.Second, year),
		},
		{
			Section: "Upgrade", Name: "MinVersion", Value: "VERSION", Example: "1.4",
			Help: "The oldest version that may be installed. There is no such floor by default.",
			set:  setMinVersion,
		},
		{
			Section: "Upgrade", Name: "Window", Value: "HOURS", List: true, Example: "Mon..Fri 02:00-04:00",
			Help: "When upgrades begin by themselves: hours, after the days of the week on which they begin, if not on all, and before `UTC`, if they are not of the " +
				"host's time zone. `Sat,Sun 22:00-04:00` ends on Sunday and on Monday. Each line has one; several add up. A release that comes outside of them is fetched, " +
				"checked and left staged until the next one opens; what began goes on past its end, and orders of the operator, and the first release, do not wait. By default it is at any time.",
			set: setWindow,
		},
		{
			Section: "Source", Name: "Path", Value: "DIRECTORY|URL", Required: true, Example: "https://example.org/app",
			Help: "Where releases come from: an absolute directory, an `https://` URL of one, a bucket, `s3://BUCKET/PREFIX`, an artifact of a registry, " +
				"`oci://REGISTRY/REPOSITORY:TAG`, the releases of a project, `github://OWNER/REPO`, `gitlab://HOST/GROUP/PROJECT` or `gitea://HOST/OWNER/REPO`, " +
				"or what a command of yours prints, `exec:/usr/local/lib/COMMAND` (see [sources](sources.md)), that holds `SHA256SUMS`, its signature and " +
				"the artifacts side by side; with `Verify=tuf` one that holds `metadata/` and `targets/`. `http://` is taken only with a signature. A user name or a password in the URL is refused, " +
				"since everybody can read this file.",
			set: setPath,
		},
		{
			Section: "Source", Name: "Mirror", Value: "URL…", List: true, Example: "https://mirror.example.org/app",
			Help: "Further `https://` or `http://` URLs, at most 15, that hold the same as `Path=`, which is a URL then. They are tried in this order while those " +
				"before do not answer, are too slow, or have not what was signed or something older than what was seen. Those on another host than `Path=` get none of its credentials.",
			set: words(func(t *target) *[]string { return &t.Source.Mirrors }, mirror),
		},
		{
			Section: "Source", Name: "Manifest", Value: "BOOLEAN", Default: "yes", Example: "no",
			Help: "Whether `Path=` is a directory that holds `SHA256SUMS`. With `no` it is the `https://` URL of the artifact itself, which always has the same name, with its own " +
				"signature beside it: `app.minisig`, `app.gpg` or `app.asc`, or with `Verify=no` none. Its version is then when it was signed, `2027.01.31.235959` in UTC, or with `Verify=no` " +
				"when the server says that it was changed; see [sources](sources.md).",
			set: setManifest,
		},
		{
			Section: "Source", Name: "MatchPattern", Value: "PATTERN…", List: true, Required: true, Unless: "Manifest", Example: "app_@v.tar.zst app_@v",
			Help: "Names of the files that are artifacts, with `@v` where the version stands and the other wildcards of " +
				"sysupdate.d(5). Of several patterns the first that matches a file counts. With `Verify=tuf` a directory may stand before it, " +
				"as in `stable/app_@v`; with `github://`, `gitlab://`, `gitea://` and `oci://` a tag that holds the version, as in `v@v/app-linux-amd64`.",
			set: words(func(t *target) *[]string { return &t.Source.Patterns }, pattern),
		},
		{
			Section: "Source", Name: "Verify", Value: "signed|tuf|no", Default: "signed", Example: "no",
			Help: "What makes a list of releases trusted: `signed` wants signatures of `SHA256SUMS` by keys in `Key=`, and `yes` means the same. " +
				"`tuf` wants a repository of The Update Framework whose roles follow from `Root=`: keys change by themselves, and metadata that is " +
				"old, mixed or held back is noticed; see [trust](trust.md). " +
				"With `no` whoever controls the source decides what this host runs; every journal line of the target says so.",
			set: setVerify,
		},
		{
			Section: "Source", Name: "Key", Value: "KEY|FILE…", List: true, Example: "/etc/upgraderd/app.pub",
			Help: "Trusted public keys of minisign, OpenPGP or SSH: a key itself, in quotes where it has spaces, or the absolute name of a file " +
				"of them: `.pub` files, an OpenPGP keyring, an allowed-signers file of ssh-keygen(1). Their kind says which files are looked for: " +
				"`SHA256SUMS.minisig`, `.gpg` or `.asc`, `.sshsig` or `.sig`. Required with `Verify=signed`. See [signing](signing.md).",
			set: keys(func(t *target) *[]string { return &t.Source.Keys }, func(k *known) *[]signature.Key { return &k.trusted }),
		},
		{
			Section: "Source", Name: "RevokedKey", Value: "KEY|FILE…", List: true, Example: "/etc/upgraderd/revoked.pub",
			Help: "Public keys, written as in `Key=`, that are trusted no more, even if `Key=` lists them too, in whatever spelling.",
			set:  keys(func(t *target) *[]string { return &t.Source.RevokedKeys }, func(k *known) *[]signature.Key { return &k.revoked }),
		},
		{
			Section: "Source", Name: "Threshold", Value: "NUMBER", Default: "1", Example: "2",
			Help: "How many of the keys in `Key=` must have signed, each of another holder. An OpenPGP key with its subkeys is one.",
			set:  count(func(t *target) *int { return &t.Source.Threshold }, 1, signature.KeysMax),
		},
		{
			Section: "Source", Name: "MaxAge", Value: "TIME", Example: "30d",
			Help: "How long a list of releases is believed after it was signed, by what minisign and OpenPGP signatures say; SSH signatures say " +
				"nothing. The publisher has to sign anew in time, with or without a new release. An older list than one that was believed is " +
				"refused in any case, and a list may name its own last day: `BEST-BEFORE-2027-06-30`, an empty file in `SHA256SUMS`.",
			set: span(func(t *target) *time.Duration { return &t.Source.MaxAge }, time.Minute, year),
		},
		{
			Section: "Source", Name: "Root", Value: "FILE", Example: "/etc/upgraderd/root.json",
			Help: "The `root.json` of a TUF repository that is trusted to begin with; any version of it, the newest is found from there. Required " +
				"with `Verify=tuf`, which takes no `Key=`.",
			set: setRoot,
		},
		{
			Section: "Source", Name: "CAFile", Value: "FILE", Example: "/etc/upgraderd/ca.pem",
			Help: "PEM certificates that are trusted for `https://`, beside the system's.",
			set:  setCAFile,
		},
		{
			Section: "Source", Name: "TokenFile", Value: "FILE", Example: "%d/app.token",
			Help: "A file of one line, the token that lets this host in, sent as `Authorization: Bearer`. `%d` is where `LoadCredential=` and " +
				"`LoadCredentialEncrypted=` of the daemon's unit put it; another file must be readable for the user `upgraderd` and should be for nobody else. It is " +
				"read for each request, so a new token counts at once, and goes to the host in `Path=` only.",
			set: secret(func(t *target) *string { return &t.Source.TokenFile }, fetcher.CheckToken),
		},
		{
			Section: "Source", Name: "LoginFile", Value: "FILE", Example: "%d/app.login",
			Help: "A file of one line, `user:password`, that is read and kept like that in `TokenFile=`. There can be one of the two.",
			set:  secret(func(t *target) *string { return &t.Source.LoginFile }, fetcher.CheckLogin),
		},
		{
			Section: "Source", Name: "Current", Value: "FILE", Example: "current.conf",
			Help: "A file of the source that names the release to run, in one line, by its file or its version, or as JSON that names a program and its configuration; or a symbolic link beside the artifacts. A change " +
				"of it is an upgrade or, with `Verify=no` or where `SHA256SUMS` lists the file and its signature says when it was made, a rollback. See [sources](sources.md). By default the newest " +
				"release is wanted.",
			set: text(func(t *target) *string { return &t.Source.Current }, fileName),
		},
		{
			Section: "Source", Name: "CertificateFile", Value: "FILE", Example: "/etc/upgraderd/host.crt",
			Help: "PEM certificates by which this host says who it is to an `https://` server that asks: its own, then those that lead to an authority " +
				"which the server knows. The file is read for each connection, so a new certificate counts at once.",
			set: text(func(t *target) *string { return &t.Source.CertificateFile }, absolute),
		},
		{
			Section: "Source", Name: "PrivateKeyFile", Value: "FILE", Example: "%d/host.key",
			Help: "The private key of `CertificateFile=`, in PEM and not encrypted, kept like the file in `TokenFile=`.",
			set:  text(func(t *target) *string { return &t.Source.PrivateKeyFile }, absolute),
		},
		{
			Section: "Source", Name: "CredentialFile", Value: "FILE", Example: "%d/app.aws",
			Help: "For `s3://`: a credentials file of the AWS tools, of which `[default]` counts, kept as that in `TokenFile=` and read for each " +
				"request. Without it `AWS_ACCESS_KEY_ID` and its kin in the daemon's environment count, and without these requests are anonymous.",
			set: secret(func(t *target) *string { return &t.Source.CredentialFile }, fetcher.CheckCredentials),
		},
		{
			Section: "Source", Name: "InstanceRole", Value: "BOOLEAN", Default: "no", Example: "yes",
			Help: "For `s3://`: the credentials are those of the role of the EC2 instance that this host is, by version 2 of the instance " +
				"metadata service. They are renewed by themselves.",
			set: boolean(func(t *target) *bool { return &t.Source.InstanceRole }),
		},
		{
			Section: "Source", Name: "Region", Value: "REGION", Example: "eu-central-1",
			Help: "For `s3://`: the region of the bucket. By default that of `AWS_REGION` in the daemon's environment, or `us-east-1`.",
			set:  text(func(t *target) *string { return &t.Source.Region }, oneWord),
		},
		{
			Section: "Source", Name: "Endpoint", Value: "URL", Example: "https://s3.example.com",
			Help: "The service that has the bucket, where it is not Amazon's, or the registry, where it is not the one in `Path=`; `http://` is taken only with a " +
				"signature. Or the base of a forge's API, " +
				"`https://`, or `http://` of this host: needed for GitHub Enterprise, and where GitLab or Gitea do not stand at the top of their host.",
			set: text(func(t *target) *string { return &t.Source.Endpoint }, endpoint),
		},
		{
			Section: "Source", Name: "AddressingStyle", Value: "auto|path|virtual", Example: "virtual",
			Help: "For `s3://`: where a request names the bucket. `path` writes it before the object, `virtual` before the host's name. `auto`, " +
				"which is assumed, is `path` with `Endpoint=`, and `virtual` without where the bucket's name allows it.",
			set: word(func(t *target) *string { return &t.Source.AddressingStyle }, "auto", "path", "virtual"),
		},
		{
			Section: "Source", Name: "Tag", Value: "TAG", Example: "stable",
			Help: "The tag of the one release of a forge that counts: to stay with it, or to follow a tag that the publisher moves. By default the " +
				"newest release counts.",
			set: text(func(t *target) *string { return &t.Source.Tag }, tag),
		},
		{
			Section: "Source", Name: "PreRelease", Value: "BOOLEAN", Default: "no", Example: "yes",
			Help: "Whether the newest release of a forge counts even if it is marked as a pre-release.",
			set:  boolean(func(t *target) *bool { return &t.Source.PreRelease }),
		},
		{
			Section: "Source", Name: "PollIntervalSec", Value: "TIME", Default: "15min", Example: "1h",
			Help: "Time between two looks at the source, at least 1s. A directory is watched and needs it only where watching cannot work.",
			set:  span(func(t *target) *time.Duration { return &t.Source.PollInterval }, time.Second, year),
		},
		{
			Section: "Source", Name: "RandomizedDelaySec", Value: "TIME", Default: "0s", Example: "5min",
			Help: "The most that is added to `PollIntervalSec=`, drawn anew each time, so that many hosts do not come at once.",
			set:  span(func(t *target) *time.Duration { return &t.Source.RandomizedDelay }, 0, year),
		},
		{
			Section: "Source", Name: "FixedRandomDelay", Value: "BOOLEAN", Default: "no", Example: "yes",
			Help: "Whether what is added for `RandomizedDelaySec=` is the same each time: it then follows from the host's machine id and the " +
				"target's name, as in systemd.timer(5), and hosts keep their distance from each other.",
			set: setFixedDelay,
		},
		{
			Section: "Source", Name: "BandwidthMax", Value: "BYTES", Example: "2M",
			Help: "How many bytes a second are fetched of an artifact, at most, and at least 1K. As many as come by default. It does not slow down " +
				"`upgraderd import`.",
			set: size(func(t *target) *int64 { return &t.Source.BandwidthMax }, 1<<10),
		},
		{
			Section: "Source", Name: "SizeMax", Value: "BYTES", Default: "1G", Example: "200M",
			Help: "The largest artifact that is fetched.",
			set:  size(func(t *target) *int64 { return &t.Source.SizeMax }, 1),
		},
		{
			Section: "Source", Name: "StallTimeoutSec", Value: "TIME", Default: "30s", Example: "1min",
			Help: "A transfer in which nothing arrives for this long is ended, and resumed later.",
			set:  span(func(t *target) *time.Duration { return &t.Source.StallTimeout }, time.Microsecond, year),
		},
		{
			Section: "Source", Name: "BandwidthMin", Value: "BYTES", Default: "1K", Example: "100K",
			Help: "A transfer that brings fewer bytes a second than this, over a minute of waiting for the source, is ended, and resumed later or from the next `Mirror=`.",
			set:  size(func(t *target) *int64 { return &t.Source.BandwidthMin }, 1),
		},
		{
			Section: "Confirm", Name: "WindowSec", Value: "TIME", Default: "1min", Example: "5min",
			Help: "How long a release is watched after the swap. One that turns bad meanwhile is rolled back.",
			set:  span(func(t *target) *time.Duration { return &t.Confirm.Window }, time.Microsecond, year),
		},
		{
			Section: "Confirm", Name: "Probe", Value: "PROBE", List: true, Example: "http://127.0.0.1:8080/healthz",
			Help: "A question put to the service during the window; all of several must succeed. `http://…` or `https://…` wants a status of " +
				"2xx, `tcp://HOST:PORT` and `unix:/PATH` (`unix:@NAME` for an abstract socket) want a connection, `exec:COMMAND` wants " +
				"exit status 0. The command's program is absolute, and runs with the rights of the daemon. One assignment is one probe.",
			set: addProbe,
		},
		{
			Section: "Confirm", Name: "ProbeIntervalSec", Value: "TIME", Default: "1s", Example: "10s",
			Help: "Time between two rounds of probes.",
			set:  span(func(t *target) *time.Duration { return &t.Confirm.ProbeInterval }, time.Millisecond, year),
		},
		{
			Section: "Confirm", Name: "ProbeTimeoutSec", Value: "TIME", Default: "5s", Example: "500ms",
			Help: "A probe that takes longer has failed.",
			set:  span(func(t *target) *time.Duration { return &t.Confirm.ProbeTimeout }, time.Microsecond, year),
		},
		{
			Section: "Confirm", Name: "ProbeFailuresMax", Value: "NUMBER", Default: "3", Example: "1",
			Help: "The number of failures of one probe in a row that makes the release bad, from 1 to 1000. So does one more relapse than that: a " +
				"probe that fails anew after it had succeeded, within the last ten times as many rounds.",
			set: count(func(t *target) *int { return &t.Confirm.ProbeFailuresMax }, 1, 1000),
		},
	}
}

// sections gives the names of the sections, in order.
func sections(keys []Key) []string {
	var names []string
	for _, k := range keys {
		if len(names) == 0 || names[len(names)-1] != k.Section {
			names = append(names, k.Section)
		}
	}
	return names
}
