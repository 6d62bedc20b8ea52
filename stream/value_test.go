package stream

import (
	"encoding/json"
	"reflect"
	"testing"
)

// FuzzValue holds what is read without a parser to what the parser would have read.
func FuzzValue(f *testing.F) {
	for _, seed := range []string{
		`""`, `"a"`, `"\u0041"`, `"\""`, "\"\xff\"", `"ü"`, `0`, `-1`, `42`, `1e3`, `1.0`, `null`, `true`, `[]`, `{}`,
		`9223372036854775807`, `9223372036854775808`, `18446744073709551615`, `999999999999999999`, `99999999999999999999`,
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		var value json.RawMessage // as it comes out of an object
		if json.Unmarshal([]byte(text), &value) != nil {
			return
		}
		for _, kind := range []any{"", int64(0), uint64(0)} {
			got, want := reflect.New(reflect.TypeOf(kind)), reflect.New(reflect.TypeOf(kind))
			gotErr, wantErr := decodeValue(value, got.Interface()), json.Unmarshal(value, want.Interface())
			if !reflect.DeepEqual(got.Elem().Interface(), want.Elem().Interface()) || !reflect.DeepEqual(gotErr, wantErr) {
				t.Errorf("%s: %v, %v; want %v, %v", value, got.Elem(), gotErr, want.Elem(), wantErr)
			}
		}
	})
}
