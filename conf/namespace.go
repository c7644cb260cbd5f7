package conf

import (
	"encoding/hex"
	"fmt"
	"strings"
)

// namespace reads the prefix of the keys of clients.
func (s *schema) namespace(n *node) {
	text, ok := s.str(n, n.value, `a prefix of keys, such as "tenant1/"`)
	if !ok {
		return
	}
	prefix := []byte(text)
	if digits, ok := strings.CutPrefix(text, hexPrefix); ok {
		var err error
		if prefix, err = hex.DecodeString(digits); err != nil || len(prefix) == 0 {
			s.wrong(n, fmt.Sprintf("%q is not an even number of hexadecimal digits", digits), "write two for each byte")
			return
		}
	}
	if prefix[0] == 0 {
		s.wrong(n, "the prefix begins with a NUL byte, as the keys do that are sharder's own", "begin it with another one")
		return
	}
	s.c.Namespace = prefix
}

// checkNamespace checks what goes together with a namespace.
func (s *schema) checkNamespace(root *node) {
	n := root.kid("members")
	if n != nil && s.c.Namespace != nil && s.c.Members == MembersShard {
		s.wrong(n, "clients that are told the members of the shard leave sharder, and with it the namespace", `take it out, or write members = "sharders"`)
	}
}
