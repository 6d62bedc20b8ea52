package playbook

import _ "embed"

// Schema is the JSON Schema of a playbook, for editors. It is made from the types of this
// package and of package action: go test ./playbook -run TestSchema -update.
//
//go:embed schema.json
var Schema []byte
