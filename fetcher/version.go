package fetcher

// Version is the version of a release, as its publisher spells it.
type Version string
