package unitlint

import (
	"fmt"
	"path"
	"slices"
	"strings"
)

func user(v *view) []finding {
	u := v.service
	if !u.there() || v.own() || v.at.User || v.target.Config != "" { // whose services run as nobody else, or run none of it
		return nil
	}
	if _, dynamic := u.yes("Service", "DynamicUser"); dynamic {
		return nil
	}
	s, given := u.last("Service", "User")
	name := s.value
	if words, sure := u.words(s.value); sure && len(words) == 1 {
		name = words[0]
	}
	f := finding{place: s.place, hint: write(u, s, given, "User= with a user of the service's own, or DynamicUser=yes,")}
	switch name {
	case "upgraderd":
		f.fatal = true
		f.message = "the service runs as upgraderd, who owns the releases: a worker could change what runs next"
	case "", "root", "0":
		if p, _ := u.last("Service", "ProtectSystem"); p.value == "strict" {
			return nil
		}
		for _, key := range []string{"ReadOnlyPaths", "ReadOnlyDirectories"} {
			if slices.ContainsFunc(u.listed("Service", key), func(s setting) bool {
				dir := strings.TrimLeft(s.value, "-+")
				return path.IsAbs(dir) && below(v.store(), dir)
			}) {
				return nil
			}
		}
		f.message = "the service runs as root: a worker could change what runs next" + assumed(given, "User=")
	default:
		return nil
	}
	return []finding{f}
}

func storeWritable(v *view) []finding {
	u := v.service
	if !u.there() || v.own() {
		return nil
	}
	var found []finding
	var states []setting
	if !v.at.User { // where the daemon's user is nobody else
		states = u.listed("Service", "StateDirectory")
	}
	for _, s := range states {
		dir, _, _ := strings.Cut(s.value, ":")
		dir = path.Join("/var/lib", dir)
		if !below(dir, v.store()) && dir != v.at.State {
			continue
		}
		found = append(found, finding{
			place: s.place, fatal: true,
			message: fmt.Sprintf("StateDirectory=%s gives %s to the service's user: the daemon cannot write there any more, and a worker can", s.value, dir),
			hint:    "name a directory of the service's own, such as StateDirectory=" + strings.TrimSuffix(v.service.name, ".service"),
		})
	}
	for _, key := range []string{"ReadWritePaths", "ReadWriteDirectories", "BindPaths"} {
		for _, s := range u.listed("Service", key) {
			dir := strings.TrimLeft(s.value, "-+")
			if key == "BindPaths" {
				dir, _, _ = strings.Cut(dir, ":")
			}
			if !path.IsAbs(dir) || !below(dir, v.store()) && !below(v.store(), dir) {
				continue
			}
			found = append(found, finding{
				place:   s.place,
				message: fmt.Sprintf("%s=%s opens the releases in %s to writing, so that only file modes protect them", key, s.value, v.store()),
				hint:    "name a directory outside " + v.at.State,
			})
		}
	}
	return found
}

// below tells whether a directory is another, or in it.
func below(dir, other string) bool {
	dir, other = path.Clean(dir), path.Clean(other)
	return dir == other || strings.HasPrefix(dir, strings.TrimSuffix(other, "/")+"/")
}
