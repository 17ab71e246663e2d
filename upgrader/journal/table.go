package journal

import "log/slog"

// table is the one source for MESSAGE_IDs, sentences and catalog.
func table() map[Event]Description {
	return map[Event]Description{
		DaemonStarted: {
			"DaemonStarted", "b93a5944dcad48f988722dbbc5089c68", slog.LevelInfo,
			"upgraderd follows {targets} targets",
			"upgraderd started",
			"upgraderd follows @UPGRADERD_TARGETS@ targets.\nList them with: upgraderd status",
		},
		ConfigReloaded: {
			"ConfigReloaded", "381f9fa31e74449c846681ef16fe03d1", slog.LevelInfo,
			"configuration read again: {targets} targets",
			"The .upgrade files were read again",
			"A target that is in the middle of an upgrade finishes it under the settings it began with.",
		},
		ConfigRejected: {
			"ConfigRejected", "fd37bb84dd6a88499f6055209ae78fe0", slog.LevelError,
			"{error}; {hint}",
			"An .upgrade file of @UPGRADERD_TARGET@ is broken",
			"@UPGRADERD_ERROR@\n@UPGRADERD_HINT@\nThe target is not followed until this is mended and upgraderd has read it again: systemctl reload upgraderd\nThe service itself, and all other targets, go on. Check first with: upgraderd verify",
		},
		ConfigDoubtful: {
			"ConfigDoubtful", "bd4e2a5626542b2e0a12ad1de6d28507", slog.LevelWarn,
			"{error}; {hint}",
			"An .upgrade file of @UPGRADERD_TARGET@ has a line that may not mean what it says",
			"@UPGRADERD_ERROR@\n@UPGRADERD_HINT@\nThe target is followed all the same.",
		},
		TargetLocked: {
			"TargetLocked", "8a4f135b95634eb0bf86e59bfb3d3fec", slog.LevelError,
			"another process holds the target: {error}",
			"Target @UPGRADERD_TARGET@ is held by another process",
			"Two daemons must not write one release store. Stop the other upgraderd; this one asks again by itself.",
		},
		ReleaseFound: {
			"ReleaseFound", "d4f2b5533b7448c2898c23392d7d43a4", LevelNotice,
			"found {to}, {from} is installed",
			"A newer release of @UPGRADERD_TARGET@ was found",
			"The source offers @UPGRADERD_TO@; @UPGRADERD_FROM@ is installed. It is fetched, verified and staged next.",
		},
		ReleaseKnownBad: {
			"ReleaseKnownBad", "a47a23306d0544dfb4cce5e803830f4f", slog.LevelWarn,
			"skipping {to}, known bad: {reason}",
			"Release @UPGRADERD_TO@ of @UPGRADERD_TARGET@ is known bad",
			"This very digest was refused or rolled back before: @UPGRADERD_REASON@\n" +
				"It is not tried again until the source offers another digest under this version or a newer version, or until it is forgiven with: upgraderd forgive @UPGRADERD_TARGET@",
		},
		ReleaseIncomparable: {
			"ReleaseIncomparable", "2f4ae7864ad44b008fa5f9b4ab544d20", slog.LevelError,
			"cannot tell whether an upgrade is due: {reason}",
			"The versions of @UPGRADERD_TARGET@ cannot be compared",
			"@UPGRADERD_REASON@\nNothing is upgraded until the installed release can be named: the link \"current\" must point at a directory releases/VERSION-DIGEST.",
		},
		ReleaseRepublished: {
			"ReleaseRepublished", "75c15b737bfd4255b81379cfeb2c0917", slog.LevelWarn,
			"the source offers other bytes under the installed version {to}, not taken",
			"Version @UPGRADERD_TO@ of @UPGRADERD_TARGET@ was published again with other contents",
			"The installed release of this version has another digest. A version names one set of bytes: the publisher has to raise the version.",
		},
		SourceFailed: {
			"SourceFailed", "48a522d4b906497185934efd41f777eb", slog.LevelWarn,
			"{error}",
			"The source of @UPGRADERD_TARGET@ does not deliver",
			"@UPGRADERD_ERROR@\nThe installed release keeps serving, and the source is asked again by itself. The same failure is not repeated in the journal.",
		},
		SourceRecovered: {
			"SourceRecovered", "f729df6cbb804500813437cce74b6c6c", slog.LevelInfo,
			"the source answers again after {took}",
			"The source of @UPGRADERD_TARGET@ answers again",
			"",
		},
		ReleaseFetched: {
			"ReleaseFetched", "5552fcb466ad4878a391cb00f61f756d", slog.LevelInfo,
			"fetched {to}, {bytes} bytes in {took}",
			"Release @UPGRADERD_TO@ of @UPGRADERD_TARGET@ was fetched",
			"",
		},
		ReleaseVerified: {
			"ReleaseVerified", "2b29f0b3d74d416fb112a444f3b1fce7", slog.LevelInfo,
			"verified {to}: {result}",
			"Release @UPGRADERD_TO@ of @UPGRADERD_TARGET@ was verified",
			"SHA-256: @UPGRADERD_DIGEST@",
		},
		ReleaseStaged: {
			"ReleaseStaged", "995bdb3581224ba99c74fab45e2a0cc0", slog.LevelInfo,
			"staged {to} in {took}",
			"Release @UPGRADERD_TO@ of @UPGRADERD_TARGET@ is on disk",
			"It is complete, durable and read-only, and does not run yet.",
		},
		ReleaseRefused: {
			"ReleaseRefused", "b40ca3597fd348aca3bfa50c4ebafe1d", slog.LevelError,
			"refused {to}, {from} keeps serving: {reason}",
			"Release @UPGRADERD_TO@ of @UPGRADERD_TARGET@ was refused",
			"@UPGRADERD_REASON@\nIt never took traffic, and @UPGRADERD_FROM@ keeps serving. The digest is known bad from now on; publish a repaired release, or try this one again with: upgraderd forgive @UPGRADERD_TARGET@",
		},
		ReleaseChecked: {
			"ReleaseChecked", "9b508eb806fd41f6a3ea1373a5553aae", slog.LevelInfo,
			"{to} passed its check in {took}",
			"Release @UPGRADERD_TO@ of @UPGRADERD_TARGET@ passed its check",
			"The command of Check= ended with exit status 0 in the sandbox.",
		},
		CheckUnavailable: {
			"CheckUnavailable", "5129b71560634f0382adfc30d9a787f2", slog.LevelError,
			"{to} cannot be checked: {error}",
			"The check of @UPGRADERD_TARGET@ cannot run",
			"@UPGRADERD_ERROR@\nThis says nothing about the release. The check runs in the template unit upgraderd-check@.service, which `upgraderd install` puts in place.",
		},
		SwapChosen: {
			"SwapChosen", "b6e02e7b4ab9471e82a852155ad4b27f", slog.LevelInfo,
			"{unit} is swapped by {swap}: {reason}",
			"How @UPGRADERD_UNIT@ is swapped",
			"Swap by @UPGRADERD_SWAP@: @UPGRADERD_REASON@",
		},
		UnitUnusable: {
			"UnitUnusable", "42e0cf9d0de149cc8261e6d0c6725982", slog.LevelError,
			"{error}",
			"Unit @UPGRADERD_UNIT@ cannot be upgraded",
			"@UPGRADERD_ERROR@\nThe release stays staged and is tried again by itself. Other targets are not affected.",
		},
		UnitChangedOnDisk: {
			"UnitChangedOnDisk", "0ff8e4eef9a94359bc626ed738a4cf73", slog.LevelWarn,
			"{unit} changed on disk and runs with its old definition; apply it with: systemctl daemon-reload",
			"Unit @UPGRADERD_UNIT@ changed on disk",
			"upgraderd never reloads systemd's configuration by itself. Apply the change with: systemctl daemon-reload\nA handover keeps the main process; settings of a new definition take effect at the next restart of the unit.",
		},
		SwapStarted: {
			"SwapStarted", "079bacfae3d14871a38f94cc7b0e23bf", LevelNotice,
			"swapping {from} for {to} by {swap}",
			"@UPGRADERD_UNIT@ moves to release @UPGRADERD_TO@",
			"",
		},
		ReleaseServes: {
			"ReleaseServes", "a1160b82ed094b678c33dade4bd395ac", LevelNotice,
			"{to} serves after {took}, watching it for {window}",
			"Release @UPGRADERD_TO@ of @UPGRADERD_TARGET@ serves",
			"It took over from @UPGRADERD_FROM@. If it turns bad while it is watched, @UPGRADERD_FROM@ comes back.",
		},
		ReleaseInstalled: {
			"ReleaseInstalled", "3c65fc2b838e456cac50b7934e84623e", LevelNotice,
			"installed {to}; {unit} is not running and starts with it",
			"Release @UPGRADERD_TO@ of @UPGRADERD_TARGET@ is installed",
			"@UPGRADERD_UNIT@ is not running. Its next start, by a connection or by hand, runs this release.",
		},
		OperatorAwaited: {
			"OperatorAwaited", "eea512cbbddb457aa14e26e2c827832c", LevelNotice,
			"{to} is staged and waits for the operator (Swap=none)",
			"Release @UPGRADERD_TO@ of @UPGRADERD_TARGET@ waits for the operator",
			"Swap=none: nothing is swapped unasked. To let upgraderd do it, set Swap=auto and run: systemctl reload upgraderd",
		},
		OperatorIntervened: {
			"OperatorIntervened", "3f5f6ed3c3af4ba5a384aaf8fad5dc51", slog.LevelWarn,
			"no verdict on {to}: {reason}",
			"The trial of release @UPGRADERD_TO@ of @UPGRADERD_TARGET@ ended without a verdict",
			"@UPGRADERD_REASON@\nSomebody else acted on @UPGRADERD_UNIT@ meanwhile. What they did stands: the release counts as neither good nor bad.",
		},
		ReleaseConfirmed: {
			"ReleaseConfirmed", "92379883a7114b37b395ec3dbdcef129", LevelNotice,
			"{to} is good after {took}",
			"Release @UPGRADERD_TO@ of @UPGRADERD_TARGET@ is good",
			"It stayed up and answered its probes for the whole confirm window.",
		},
		ReleaseTurnedBad: {
			"ReleaseTurnedBad", "a36b25414ed44036b9ffc8df12a74a13", slog.LevelError,
			"{to} turned bad after {took}: {reason}",
			"Release @UPGRADERD_TO@ of @UPGRADERD_TARGET@ turned bad",
			"@UPGRADERD_REASON@\nThe release before it comes back, and this digest is known bad from now on.",
		},
		RolledBack: {
			"RolledBack", "cc9f336c61bf4952acf755b44ccafea0", LevelNotice,
			"rolled back to {to} in {took}",
			"@UPGRADERD_TARGET@ was rolled back to @UPGRADERD_TO@",
			"Release @UPGRADERD_FROM@ turned bad; @UPGRADERD_TO@ serves again.",
		},
		RollbackFailed: {
			"RollbackFailed", "59c5dd01f1f84683869eb04744a0d1e1", LevelCritical,
			"ROLLBACK FAILED, {unit} is left as it is: {error}",
			"The rollback of @UPGRADERD_TARGET@ failed",
			"@UPGRADERD_ERROR@\nA person has to look at @UPGRADERD_UNIT@: systemctl status @UPGRADERD_UNIT@",
		},
		SwapRecovered: {
			"SwapRecovered", "39e04732fb5444e78e80acb29ebca2ac", LevelNotice,
			"found the swap to {to} unfinished: {result}",
			"An interrupted swap of @UPGRADERD_TARGET@ was taken up again",
			"upgraderd ended in the middle of it. What the disk and systemd say decided how it goes on: @UPGRADERD_RESULT@",
		},
		ReleaseRemoved: {
			"ReleaseRemoved", "2f749db883f147e09fc275f86a4c9f0c", slog.LevelInfo,
			"removed old release {release}",
			"An old release of @UPGRADERD_TARGET@ was removed",
			"InstancesMax= says how many stay. The running one, the one to return to and a staged one always do.",
		},
		StepFailed: {
			"StepFailed", "4924b685ead648009b60acdd8365eccb", slog.LevelError,
			"{phase}: {error}",
			"A step of @UPGRADERD_TARGET@ failed",
			"@UPGRADERD_ERROR@\nIt is tried again by itself.",
		},
		WorkerStarting: {
			"WorkerStarting", "4f7eebc3790e6faeddc081dfb7766ede", slog.LevelInfo,
			"starting {release} as worker {pid}",
			"Worker @UPGRADERD_PID@ of @UPGRADERD_TARGET@ is starting",
			"It runs release @UPGRADERD_RELEASE@ beside the worker that serves, if there is one, and takes over when it is ready.",
		},
		WorkerReady: {
			"WorkerReady", "7e344dd9a344c6f806919c5e1c1dd6f6", LevelNotice,
			"{release} serves: worker {pid} was ready after {took}",
			"Release @UPGRADERD_RELEASE@ of @UPGRADERD_TARGET@ serves",
			"The worker became ready. An older one, if there is one, gets its stop signal now and drains.",
		},
		WorkerFailed: {
			"WorkerFailed", "03d30972740d83e2758a64acc81bd127", slog.LevelError,
			"{release} never served: worker {pid} {reason}",
			"Release @UPGRADERD_RELEASE@ of @UPGRADERD_TARGET@ did not become ready",
			"Worker @UPGRADERD_PID@ @UPGRADERD_REASON@\nThe worker that served before was not told and serves on. What the release itself said stands in this journal, from that PID.",
		},
		WorkerDraining: {
			"WorkerDraining", "691a4b4d00ebe0aa09bdd9937d6ccbc1", slog.LevelInfo,
			"{release} drains: worker {pid} has {limit} to finish",
			"An old worker of @UPGRADERD_TARGET@ drains",
			"It takes no new connections and finishes those it has. At the limit it is killed, with its process group.",
		},
		WorkerDrained: {
			"WorkerDrained", "842fbe2fde49e414c62242831ffaefde", slog.LevelInfo,
			"{release} has drained: worker {pid} {exit} after {took}",
			"An old worker of @UPGRADERD_TARGET@ has drained",
			"It finished by itself within its limit.",
		},
		WorkerKilled: {
			"WorkerKilled", "8f9d0a0983b0c7b924673cc1d1e3be4c", slog.LevelWarn,
			"{release} was cut off: worker {pid} was {reason}",
			"An old worker of @UPGRADERD_TARGET@ did not finish in time",
			"Connections it still had were cut. If they are meant to take that long, raise --drain-timeout= of the supervisor.",
		},
		WorkerEnded: {
			"WorkerEnded", "4f0416e8cbacdc4fd390b1c742a01356", slog.LevelError,
			"{release} ended unasked: worker {pid} {exit}",
			"The worker of @UPGRADERD_TARGET@ ended by itself",
			"Its exit status becomes that of the unit's main process, so Restart= decides what comes next. Until then connections wait in the sockets.",
		},
		WorkerAdopted: {
			"WorkerAdopted", "52f9b00251d466b3c4621fb0feec03ea", LevelNotice,
			"adopted worker {pid}, {role} {release}",
			"The supervisor of @UPGRADERD_TARGET@ took a running worker over",
			"The supervisor before this one was killed or crashed; its workers went on serving. systemctl status tells what happened to it.",
		},
		WorkerStalled: {
			"WorkerStalled", "bcf8f2eb590350d304d74f1bfbbebc79", slog.LevelError,
			"watchdog: worker {pid} of {release} said nothing for {limit}",
			"The worker of @UPGRADERD_TARGET@ missed its watchdog",
			"WatchdogSec= of the unit holds for the worker too. It gets SIGABRT, and Restart= decides what comes next.",
		},
		HandoverRefused: {
			"HandoverRefused", "d002e42f5eab712fab4ac5950bf5e03d", slog.LevelWarn,
			"no handover: {reason}",
			"A handover of @UPGRADERD_TARGET@ was refused",
			"@UPGRADERD_REASON@\nNothing was started, and the worker that serves was not told.",
		},
		UnitStopping: {
			"UnitStopping", "d6cc3ee2799a2b3eb0b0c7c98c38079a", slog.LevelInfo,
			"stopping {workers} workers on {signal}",
			"The supervisor of @UPGRADERD_TARGET@ stops",
			"Every worker gets the stop signal, and at the drain limit SIGKILL.",
		},
		LeftoversKilled: {
			"LeftoversKilled", "e2e793ce1d065c2ba5016dc467f67987", slog.LevelWarn,
			"killed {count} processes that were left in the unit's control group",
			"Processes of @UPGRADERD_TARGET@ had left their worker's process group",
			"KillMode=process leaves them to the supervisor. A worker should end its own children.",
		},
	}
}
