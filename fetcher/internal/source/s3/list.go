package s3

import (
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/upgraderd/upgraderd/fetcher/fault"
	"github.com/upgraderd/upgraderd/fetcher/internal/client"
	"github.com/upgraderd/upgraderd/fetcher/internal/source"
)

const (
	// A page names at most a thousand objects, of at most a KiB of name, which
	// may be written as three.
	pageKeys = 1000
	pageMax  = 4 << 20
	// pagesMax and listTimeout bound a service that gives a few names a page,
	// or none and the word that there is more.
	pagesMax    = 1000
	listTimeout = 10 * time.Minute
)

// page is an answer of ListObjectsV2, as far as it is of use.
type page struct {
	XMLName  xml.Name `xml:"ListBucketResult"`
	Encoding string   `xml:"EncodingType"`
	Contents []struct {
		Key  string `xml:"Key"`
		Size int64  `xml:"Size"`
	} `xml:"Contents"`
	More bool   `xml:"IsTruncated"`
	Next string `xml:"NextContinuationToken"`
}

// List names the objects directly below the prefix.
func (b *Bucket) List(ctx context.Context, max int) ([]source.File, error) {
	var files []source.File
	begin, next := time.Now(), ""
	for pages := 1; ; pages++ {
		p, err := b.page(ctx, next)
		if err != nil {
			return nil, err
		}
		for _, object := range p.Contents {
			name, ok := strings.CutPrefix(object.Key, b.prefix)
			if !ok || source.CheckName(name) != nil {
				continue // the prefix itself, which some tools make an object of
			}
			if len(files) == max {
				return nil, fault.New(fault.MetaTooLarge, fmt.Errorf("more than %d objects", max), "remove old releases from the bucket, or name a longer prefix in Path=")
			}
			files = append(files, source.File{Name: name, Size: object.Size})
		}
		switch {
		case !p.More:
			return files, nil
		case p.Next == "" || p.Next == next || pages == pagesMax:
			return nil, fault.Passing(fault.Protocol, fmt.Errorf("the list of the bucket comes to no end after %d pages", pages), protocolHint)
		case time.Since(begin) > listTimeout:
			return nil, fault.Passing(fault.TooSlow, fmt.Errorf("the list of the bucket is not complete after %v", listTimeout), "name a longer prefix in Path=")
		}
		next = p.Next
	}
}

const protocolHint = "check that Endpoint= speaks the protocol of S3"

// page gets one page of the list, the first where from is empty.
func (b *Bucket) page(ctx context.Context, from string) (p page, err error) {
	query := url.Values{
		"list-type": {"2"}, "prefix": {b.prefix}, "delimiter": {"/"}, "max-keys": {strconv.Itoa(pageKeys)},
		"encoding-type": {"url"}, // XML has no words for some names
	}
	if from != "" {
		query.Set("continuation-token", from)
	}
	var raw []byte
	err = b.ask(ctx, "", query, "list", func(r client.Request) (err error) {
		raw, _, err = b.client.Read(ctx, r, pageMax, "")
		return err
	})
	if err != nil {
		return page{}, err
	}
	if err := xml.Unmarshal(raw, &p); err != nil {
		return page{}, fault.Passing(fault.Protocol, errors.New("what came is no list of a bucket"), protocolHint)
	}
	if p.Encoding != "url" {
		return p, nil
	}
	for i := range p.Contents {
		key := &p.Contents[i].Key
		if *key, err = url.QueryUnescape(*key); err != nil {
			return page{}, fault.Passing(fault.Protocol, errors.New("the list of the bucket has a name that cannot be read"), protocolHint)
		}
	}
	return p, nil
}
