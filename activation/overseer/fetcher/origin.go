package fetcher

import (
	"net/url"
	"path/filepath"

	"github.com/upgraderd/upgraderd/activation/overseer/origin"
)

// OriginOf tells where f looks, once its Init has gone well.
func OriginOf(f Interface) origin.Origin {
	switch f := f.(type) {
	case *File:
		path, err := filepath.Abs(f.Path)
		if err != nil {
			path = ""
		}
		return origin.Origin{Kind: "file", Path: path, Interval: f.Interval, Keys: len(f.Keys)}
	case *HTTP:
		o := origin.Origin{Kind: "http", Interval: f.Interval, Authorized: f.Token != "", Keys: len(f.Keys)}
		if u, err := url.Parse(f.URL); err == nil && f.URL != "" {
			o.Authorized = o.Authorized || u.User != nil
			u.User = nil
			o.Path = u.String()
		}
		return o
	case *S3:
		return origin.Origin{
			Kind: "s3", Path: "s3://" + f.Bucket + "/" + f.Key, Region: f.Region, Endpoint: f.Endpoint,
			Interval: f.Interval, Authorized: f.Access != "", Keys: len(f.Keys),
		}
	case *Github:
		o := origin.Origin{Kind: "github", Path: "github://" + f.User + "/" + f.Repo, Interval: f.Interval, Authorized: f.Token != "", Keys: len(f.Keys)}
		if f.Endpoint != "https://api.github.com" {
			o.Endpoint = f.Endpoint
		}
		return o
	}
	return origin.Origin{Kind: "function"}
}
