package pointsman

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	pb "example.com/pointsman/gen/pointsman/v1"
)

const (
	points = 10_000
	// mostPoints is how many points of a caller are looked at before the word after them decides.
	mostPoints = 64
	wordsOfSum = sha256.Size / 8
)

var (
	// ErrNoActiveVersion means that no version that could be chosen is active.
	ErrNoActiveVersion = errors.New("no version is active")
	// ErrAmbiguousVersion means that several versions are active, and no traffic is set.
	ErrAmbiguousVersion = errors.New("several versions are active, and no traffic is set")
	// ErrTrafficUnknown means that the table has no traffic, because the server is older: call Client.Select.
	ErrTrafficUnknown = errors.New("the traffic is not known here")
)

// Rule is why a version was chosen.
type Rule string

const (
	// RuleSplit is the weights of the traffic, and the sticky key.
	RuleSplit Rule = "SPLIT"
	// RuleFallback is the first active fallback: no target with a weight is active.
	RuleFallback Rule = "FALLBACK"
	// RuleOnlyActive is the only active version: no traffic is set.
	RuleOnlyActive Rule = "ONLY_ACTIVE"
)

// Choice is a version, the rule that chose it, and the versions before it that are not active.
type Choice struct {
	Version          string
	Rule             Rule
	InactiveVersions []string
}

// Choose chooses a version of a family, tenant/service/env, by the rule that servers and all clients share: docs/traffic.md
// has it. traffic may be nil; active has the active versions. An empty sticky key is replaced by a random text.
func Choose(family string, traffic *pb.Traffic, active []string, stickyKey string) (Choice, error) {
	if traffic == nil {
		switch len(active) {
		case 0:
			return Choice{}, ErrNoActiveVersion
		case 1:
			return Choice{Version: active[0], Rule: RuleOnlyActive}, nil
		}
		return Choice{}, ErrAmbiguousVersion
	}
	var of []*pb.TrafficSlice // the slices of active versions
	var count uint64
	for _, slice := range traffic.GetSlices() {
		if slices.Contains(active, slice.GetVersion()) {
			of = append(of, slice)
			count += uint64(slice.GetSize())
		}
	}
	if count == 0 {
		return fallback(traffic, active)
	}
	if stickyKey == "" {
		stickyKey = rand.Text()
	}
	var passed []string
	row := words{prefix: family + "\n" + stickyKey}
	for range mostPoints {
		version := owner(traffic.GetSlices(), row.next()%points)
		if slices.Contains(active, version) {
			return Choice{version, RuleSplit, passed}, nil
		}
		passed = with(passed, version)
	}
	return Choice{owner(of, row.next()%count), RuleSplit, passed}, nil
}

func fallback(traffic *pb.Traffic, active []string) (Choice, error) {
	var passed []string
	for _, target := range traffic.GetTargets() {
		if target.GetWeight() > 0 {
			passed = with(passed, target.GetVersion())
		}
	}
	for _, version := range traffic.GetFallbacks() {
		if slices.Contains(active, version) {
			return Choice{version, RuleFallback, passed}, nil
		}
		passed = with(passed, version)
	}
	return Choice{}, ErrNoActiveVersion
}

// words are the numbers of a caller: the four of the SHA-256 of the prefix, then those of the prefix and "\n1", and so on.
type words struct {
	prefix string
	number int
	sum    [sha256.Size]byte
}

func (w *words) next() uint64 {
	place := w.number % wordsOfSum
	if place == 0 {
		text := w.prefix
		if block := w.number / wordsOfSum; block > 0 {
			text = fmt.Sprintf("%s\n%d", text, block)
		}
		w.sum = sha256.Sum256([]byte(text))
	}
	w.number++
	return binary.BigEndian.Uint64(w.sum[place*8:])
}

// owner returns the version of the slice that a point is in.
func owner(of []*pb.TrafficSlice, point uint64) string {
	for _, slice := range of {
		if size := uint64(slice.GetSize()); point >= size {
			point -= size
			continue
		}
		return slice.GetVersion()
	}
	return "" // slices divide all points
}

func with(versions []string, version string) []string {
	if slices.Contains(versions, version) {
		return versions
	}
	return append(versions, version)
}
