package cache

// An Outcome says where an answer came from.
type Outcome uint8

const (
	HitLocal      Outcome = iota // a copy in this process' memory
	HitValkey                    // read from Valkey
	MissStored                   // loaded, and stored
	MissCollapsed                // loaded by another request of this process
	MissRefused                  // loaded, and not stored
	BypassDown                   // Valkey is not reachable: loaded, at most MaxStaleness ago
	BypassGuard                  // nothing proves that Valkey's values are fresh: loaded, at most MaxStaleness ago
	BypassToken                  // the request may not be answered with what is stored: loaded since it came
	outcomes
)

var outcomeTexts = [outcomes]string{
	HitLocal:      "walkey; hit; detail=local",
	HitValkey:     "walkey; hit; detail=valkey",
	MissStored:    "walkey; fwd=miss; stored",
	MissCollapsed: "walkey; fwd=miss; collapsed",
	MissRefused:   "walkey; fwd=miss; detail=fill-refused",
	BypassDown:    "walkey; fwd=bypass; detail=valkey-down",
	BypassGuard:   "walkey; fwd=bypass; detail=stale-guard",
	BypassToken:   "walkey; fwd=bypass; detail=consistency-token",
}

// String is the value of the Cache-Status field (RFC 9211).
func (o Outcome) String() string {
	if o < outcomes {
		return outcomeTexts[o]
	}
	return "walkey"
}

// outcomeLines are the same as values of a header.
var outcomeLines = func() (lines [outcomes][]string) {
	for i, text := range outcomeTexts {
		lines[i] = []string{text}
	}
	return lines
}()

// Header is the same as the value of a header. It is shared: never change it.
func (o Outcome) Header() []string {
	if o < outcomes {
		return outcomeLines[o]
	}
	return []string{o.String()}
}
