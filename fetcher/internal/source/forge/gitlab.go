package forge

import (
	"encoding/json"
	"net/url"
	"strconv"
)

// gitlab speaks version 4 of GitLab's REST API. It has no pre-releases, but
// releases of a day to come. Source: docs.gitlab.com/api/releases.
type gitlab struct{}

func (gitlab) place(u *url.URL) (endpoint, project string, err error) {
	// Groups nest, twenty deep.
	names, err := segments(u, 2, 21)
	if err != nil {
		return "", "", err
	}
	whole := names[0]
	for _, name := range names[1:] {
		whole += "/" + name
	}
	return "https://" + u.Host + "/api/v4", "projects/" + url.PathEscape(whole), nil
}

func (gitlab) latest() string           { return "" }
func (gitlab) tagged(tag string) string { return "releases/" + url.PathEscape(tag) }
func (gitlab) accept() string           { return "application/json" }

func (gitlab) list(page int) url.Values {
	return url.Values{"per_page": {strconv.Itoa(pageSize)}, "page": {strconv.Itoa(page)}, "order_by": {"released_at"}, "sort": {"desc"}}
}

// files are links, each under its own name. What is at their end may change, so
// the server there marks it.
func (gitlab) files(p *Project, raw json.RawMessage) ([]file, error) {
	var assets struct {
		Links []struct {
			Name string `json:"name"`
			URL  string `json:"url"`
		} `json:"links"`
	}
	if err := json.Unmarshal(raw, &assets); err != nil {
		return nil, notTheAPI(err)
	}
	files := make([]file, len(assets.Links))
	for i, l := range assets.Links {
		files[i] = p.link(l.Name, l.URL)
	}
	return files, nil
}
