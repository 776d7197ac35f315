package settings

import "testing"

// FuzzApply gives each setting any text: it is taken or refused, and a refusal
// changes nothing.
func FuzzApply(f *testing.F) {
	for _, text := range []string{"", "0", "1", "5", "-1", "5s", "7d", "1GiB", "1h,1GiB", "0,0", "off", "99999999999999999999", "exe:/x", "value:(", "127.0.0.1:0"} {
		f.Add(text)
	}
	table := Table()
	f.Fuzz(func(t *testing.T, text string) {
		for i := range table {
			s := &table[i]
			v := defaults(table)
			before := s.show(&v)
			if fault := s.apply(&v, given{origin: "test", texts: []string{text}}); fault != nil && s.show(&v) != before {
				t.Errorf("%s %q: a fault changed the value", s.Name, text)
			}
		}
	})
}
