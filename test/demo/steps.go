package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/upgraderd/upgraderd/test/load"
	"github.com/upgraderd/upgraderd/test/publish"
	"github.com/upgraderd/upgraderd/upgrader"
	"github.com/upgraderd/upgraderd/upgrader/journal"
)

// step is one release: how it comes, and what must become of it.
type step struct {
	version string
	fault   string // what it is built to do wrong, see examples/hello
	// title says in one line what is about to happen, name says it in the
	// table.
	title, name string
	do          func(*show, context.Context, step) error
	// verdict is how the attempt has to end: a verdict of the daemon's, or
	// the reason why there was no attempt.
	verdict string
	// bad tells whether the release must be known bad afterwards.
	bad bool
	// serves is the version that must serve then.
	serves string
}

func steps() []step {
	const good, refused, rolledBack = string(upgrader.VerdictGood), string(upgrader.VerdictRefused), string(upgrader.VerdictRolledBack)
	return []step{
		{
			version: "1.0.0", name: "first, in directory",
			title: "1.0.0 is in a directory; upgraderd is enabled, and clients wait already",
			do:    (*show).enable, verdict: good, serves: "1.0.0",
		}, {
			version: "2.0.0", name: "in the directory",
			title: "2.0.0 appears in the directory",
			do:    (*show).putIntoDirectory, verdict: good, serves: "2.0.0",
		}, {
			version: "3.0.0", name: "over HTTPS",
			title: "3.0.0 is on an HTTPS server; the .upgrade file is changed to follow it",
			do:    (*show).moveToSite, verdict: good, serves: "3.0.0",
		}, {
			version: "4.0.0", fault: "crash", name: "crashes at start",
			title: "4.0.0 crashes at start; 3.0.0 serves on",
			do:    (*show).putOnSite, verdict: refused, bad: true, serves: "3.0.0",
		}, {
			version: "4.1.0", fault: "unready", name: "never gets ready",
			title: "4.1.0 starts and never becomes ready; it is given " + startTimeout.String(),
			do:    (*show).putOnSite, verdict: refused, bad: true, serves: "3.0.0",
		}, {
			version: "4.2.0", name: "has a bad signature",
			title: "4.2.0 was added to SHA256SUMS after that was signed",
			do:    (*show).smuggle, verdict: "SIG_BAD", serves: "3.0.0",
		}, {
			version: "5.0.0", fault: "sicken:" + healthy.String(), name: "turns bad on watch",
			title: "5.0.0 takes over, and its health check fails " + healthy.String() + " later",
			do:    (*show).putOnSite, verdict: rolledBack, bad: true, serves: "3.0.0",
		},
	}
}

// outcome is what became of a step.
type outcome struct {
	step
	got      string
	gotBad   bool
	gotServe string
	took     time.Duration
	why      string // in the daemon's words
}

func (o outcome) ok() bool { return o.got == o.verdict && o.gotBad == o.bad && o.gotServe == o.serves }

// stepTimeout ends a step that comes to no verdict. On an idle machine none
// takes longer than six seconds.
const stepTimeout = time.Minute

// play does a step and waits for its end. The error is of this demo; whatever
// upgraderd does is an outcome.
func (s *show) play(ctx context.Context, st step) (outcome, error) {
	o := outcome{step: st}
	before, began := s.journal.length(), time.Now()
	if err := st.do(s, ctx, st); err != nil {
		return o, fmt.Errorf("%s: %w", st.title, err)
	}
	waiting, cancel := context.WithTimeout(ctx, stepTimeout)
	defer cancel()
	verdict := isVerdict(st.version)
	if err := s.journal.await(waiting, before, verdict); err != nil && waiting.Err() == nil {
		return o, err
	}
	o.took = time.Since(began)
	status, err := s.settled(ctx, st.version)
	if err != nil {
		return o, err
	}
	o.got, o.why = judge(status, st.version)
	o.gotBad = slices.ContainsFunc(status.KnownBad, func(b upgrader.KnownBad) bool { return b.Version == st.version })
	o.gotServe, err = s.serving(ctx)
	return o, err
}

// isVerdict tells the journal's entry with which the attempt to install
// version has ended, or could not begin.
func isVerdict(version string) func(entry) bool {
	about := func(e entry) text { return e.To }
	from := func(e entry) text { return e.From }
	any := func(entry) text { return text(version) }
	ends := map[text]func(entry) text{}
	for event, of := range map[journal.Event]func(entry) text{
		journal.ReleaseConfirmed: about, journal.ReleaseRefused: about, journal.ReleaseInstalled: about,
		journal.RolledBack: from, journal.RollbackFailed: about, journal.OperatorIntervened: about,
		journal.UnitUnusable: about, journal.SourceFailed: any,
	} {
		ends[text(event.Describe().ID)] = of
	}
	return func(e entry) bool {
		of, ok := ends[e.ID]
		return ok && of(e) == text(version)
	}
}

// judge reads out of a status how the attempt to install version ended.
func judge(st upgrader.TargetStatus, version string) (verdict, why string) {
	if st.Last != nil && st.Last.To == version {
		return string(st.Last.Verdict), st.Last.Reason
	}
	if code := regexp.MustCompile(`\[([A-Z_]+)\]`).FindStringSubmatch(st.Trouble); code != nil {
		return code[1], st.Trouble
	}
	return "none", st.Trouble
}

// settled is the status once the daemon rests again. What it says in the
// journal it writes to disk a moment later.
func (s *show) settled(ctx context.Context, version string) (upgrader.TargetStatus, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	for {
		st, err := s.status(ctx)
		if err != nil {
			return st, err
		}
		if verdict, _ := judge(st, version); st.State == upgrader.Idle && verdict != "none" {
			return st, nil
		}
		select {
		case <-ctx.Done():
			return st, nil // the table tells what it is instead
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// answers is how many of them, in a row, say who serves.
const answers = 50

// serving is the version that the clients get answers from. Requests that were
// under way when another took over are waited for.
func (s *show) serving(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	for {
		before := s.load.Report()
		err := s.load.Await(ctx, func(now load.Report) bool { return now.Answered-before.Answered >= answers })
		var versions []string
		for version, n := range s.load.Report().Versions {
			if n > before.Versions[version] {
				versions = append(versions, version)
			}
		}
		slices.Sort(versions)
		switch {
		case len(versions) == 1:
			return versions[0], nil
		case errors.Is(err, context.DeadlineExceeded):
			return strings.Join(versions, "+"), nil
		case err != nil:
			return "", err
		}
	}
}

// enable puts the first release into the directory, and starts the daemon.
func (s *show) enable(ctx context.Context, st step) error {
	if _, err := s.machine.Run(ctx, "mkdir", "-p", directory); err != nil {
		return err
	}
	if err := s.putIntoDirectory(ctx, st); err != nil {
		return err
	}
	return s.run(ctx, "systemctl", "enable", "--now", "upgraderd.service")
}

// putIntoDirectory publishes a release where the first ones are.
func (s *show) putIntoDirectory(ctx context.Context, st step) error {
	data, err := s.release(ctx, st)
	if err != nil {
		return err
	}
	manifest := s.publisher.Manifest()
	const upload = directory + ".upload"
	for name, data := range map[string][]byte{
		artifact(st.version):  data,
		publish.ManifestName:  manifest,
		publish.SignatureName: s.publisher.Sign(manifest),
	} {
		if err := s.machine.WriteFile(ctx, upload+"/"+name, 0o644, data); err != nil {
			return err
		}
	}
	// Three renames in one go: the daemon, which looks when a directory has
	// come to rest, does not see a manifest without its signature.
	_, err = s.machine.Run(ctx, "mv", "--target-directory="+directory,
		upload+"/"+artifact(st.version), upload+"/"+publish.SignatureName, upload+"/"+publish.ManifestName)
	return err
}

// moveToSite changes where the target looks.
func (s *show) moveToSite(ctx context.Context, st step) error {
	if err := s.openSite(ctx); err != nil {
		return err
	}
	if err := s.putOnSite(ctx, st); err != nil {
		return err
	}
	source := sourceSection(siteURL, authorityFile)
	s.screen.file(upgradeFile+" now says", source)
	if err := s.machine.WriteFile(ctx, upgradeFile, 0o644, []byte(targetFile(source))); err != nil {
		return err
	}
	return s.run(ctx, "systemctl", "reload", "upgraderd.service")
}

// putOnSite publishes a release over HTTPS.
func (s *show) putOnSite(ctx context.Context, st step) error {
	if _, err := s.release(ctx, st); err != nil {
		return err
	}
	s.showOnSite(s.publisher.Manifest(), s.publisher.Manifest())
	return nil
}

// smuggle puts a release next to the others, and into their manifest, but
// cannot sign that.
func (s *show) smuggle(ctx context.Context, st step) error {
	signed := s.publisher.Manifest()
	if _, err := s.release(ctx, st); err != nil {
		return err
	}
	s.showOnSite(s.publisher.Manifest(), signed)
	s.publisher.Remove(artifact(st.version)) // of which its publisher knows nothing
	return nil
}

// showOnSite shows all releases with a manifest, and the signature over what
// was signed.
func (s *show) showOnSite(manifest, signed []byte) {
	files := maps.Clone(s.artifacts)
	files[publish.ManifestName] = manifest
	files[publish.SignatureName] = s.publisher.Sign(signed)
	s.site.show(files)
}
