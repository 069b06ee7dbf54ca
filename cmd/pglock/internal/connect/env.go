package connect

import (
	"maps"
	"slices"
	"strings"
)

// Env returns an environment in which libpq's programs, such as pg_dump, connect to the
// target: env with other values for libpq's variables. The password is in it.
func (t *Target) Env(env []string) []string {
	settings := values{}
	maps.Copy(settings, t.settings)
	settings["user"], settings["dbname"] = t.User, t.Database
	settings["application_name"] = t.Application()
	if t.password != "" {
		settings["password"] = t.password
	}
	delete(settings, "service") // its settings are in the others
	delete(settings, "servicefile")
	env = slices.DeleteFunc(slices.Clone(env), func(kv string) bool {
		return slices.ContainsFunc(keywords, func(k keyword) bool {
			return k.variable != "" && strings.HasPrefix(kv, k.variable+"=")
		})
	})
	for _, k := range keywords {
		if value := settings[k.name]; value != "" && k.variable != "" {
			env = append(env, k.variable+"="+value)
		}
	}
	return env
}
