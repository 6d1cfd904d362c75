package autobus

import (
	"reflect"
	"strings"
	"testing"
	"time"
)

// In want, what is zero stands for the default.
var goodRedisURLs = []struct {
	url  string
	want redisURL
}{
	{"redis://", redisURL{}},
	{"redis:///", redisURL{}},
	{"redis://localhost", redisURL{}},
	{"REDIS://localhost:6379/0", redisURL{}},
	{"redis://localhost:/0/", redisURL{}},
	{"redis://localhost?db=3", redisURL{}},
	{"valkey://localhost", redisURL{}},
	{"redis://10.0.0.1:7000/15", redisURL{addrs: []string{"10.0.0.1:7000"}}},
	{"redis://[::1]", redisURL{addrs: []string{"[::1]:6379"}}},
	{"redis://[::1]:7000/1", redisURL{addrs: []string{"[::1]:7000"}}},
	{"redis://[fe80::1%25eth0]:7000", redisURL{addrs: []string{"[fe80::1%eth0]:7000"}}},
	{"redis://[fe80::1%eth0]", redisURL{addrs: []string{"[fe80::1%eth0]:6379"}}},
	{"redis://u:p@[::1]:7000", redisURL{addrs: []string{"[::1]:7000"}, username: "u", password: "p"}},
	{"redis://a:1,b,[::1]:3", redisURL{addrs: []string{"a:1", "b:6379", "[::1]:3"}}},
	{"redis://u:p@a:1,b:2/0", redisURL{addrs: []string{"a:1", "b:2"}, username: "u", password: "p"}},

	{"redis://:secret@", redisURL{password: "secret"}},
	{"redis://user@localhost", redisURL{username: "user"}},
	{"redis://user:@localhost", redisURL{username: "user"}},
	{"redis://user:pass@localhost", redisURL{username: "user", password: "pass"}},
	{"redis://us%65r:p%40ss%2F%3a%25%23%3f@localhost", redisURL{username: "user", password: "p@ss/:%#?"}},
	{"redis://user:p@s:s@localhost", redisURL{username: "user", password: "p@s:s"}},
	{"redis://user:50%@localhost", redisURL{username: "user", password: "50%"}},
	{"redis://user:50%zz+%@localhost", redisURL{username: "user", password: "50%zz+%"}},
	{"redis://user:p,q;[r]&s=t@localhost", redisURL{username: "user", password: "p,q;[r]&s=t"}},
	{"redis://user:пароль%20%D0%B0@localhost", redisURL{username: "user", password: "пароль а"}},
	{"redis://localhost?username=user&password=p%40s+s", redisURL{username: "user", password: "p@s s"}},
	{"redis://one:two@localhost?username=user&password=pass", redisURL{username: "one", password: "two"}},
	{"redis://one@localhost?password=pass", redisURL{username: "one", password: "pass"}},
	{"redis://localhost?password=", redisURL{}},

	{"redis://localhost?socket_timeout=0.5", redisURL{socketTimeout: 500 * time.Millisecond}},
	{"redis://localhost?socket_timeout=2&socket_connect_timeout=3", redisURL{socketTimeout: 2 * time.Second, connectTimeout: 3 * time.Second}},
	{"redis://localhost?socket_connect_timeout=1e-1", redisURL{connectTimeout: 100 * time.Millisecond}},
	{"redis://localhost?health_check_interval=30", redisURL{healthCheck: 30 * time.Second}},
	{"redis://localhost?health_check_interval=0", redisURL{healthCheck: -1}},
	{"redis://localhost?client_name=a%20b&protocol=3&&", redisURL{clientName: "a b", protocol: 3}},
	{"redis://localhost?protocol=2", redisURL{}},
	{"redis://localhost?sharded=1", redisURL{sharded: true}},
	{"redis://localhost?sharded=No", redisURL{}},

	{"rediss://localhost", redisURL{tls: true}},
	{"valkeys://localhost", redisURL{tls: true}},
	{"rediss://localhost?ssl_cert_reqs=none", redisURL{tls: true, noVerify: true}},
	{"rediss://localhost?ssl_cert_reqs=required&ssl_check_hostname=True", redisURL{tls: true}},
	{"rediss://localhost?ssl_cert_reqs=optional&ssl_check_hostname=False", redisURL{tls: true, noHostname: true}},
	{"rediss://localhost?ssl_ca_certs=/etc/ca.pem&ssl_certfile=/c.pem&ssl_keyfile=/k%20.pem&ssl_server_name=redis.example",
		redisURL{tls: true, caCerts: "/etc/ca.pem", certFile: "/c.pem", keyFile: "/k .pem", serverName: "redis.example"}},
	{"rediss://localhost?ssl_certfile=/both.pem", redisURL{tls: true, certFile: "/both.pem"}},

	{"unix:///run/redis.sock", redisURL{network: "unix", addrs: []string{"/run/redis.sock"}}},
	{"unix:///run/my%20redis.sock?db=1", redisURL{network: "unix", addrs: []string{"/run/my redis.sock"}}},
	{"unix://user:pass@/run/redis.sock", redisURL{network: "unix", addrs: []string{"/run/redis.sock"}, username: "user", password: "pass"}},
	{"unix:///run/redis.sock?password=pass", redisURL{network: "unix", addrs: []string{"/run/redis.sock"}, password: "pass"}},

	{"redis+sentinel://s1,s2:1/mymaster", redisURL{sentinel: true, master: "mymaster", addrs: []string{"s1:26379", "s2:1"}}},
	{"redis+sentinel:///my%2Fmaster/0", redisURL{sentinel: true, master: "my/master", addrs: []string{"localhost:26379"}}},
	{"rediss+sentinel://u:p@s1/m?sentinel_username=x&sentinel_password=y",
		redisURL{sentinel: true, tls: true, master: "m", addrs: []string{"s1:26379"}, username: "u", password: "p", sentinelUsername: "x", sentinelPassword: "y"}},
}

func TestRedisURL(t *testing.T) {
	for _, test := range goodRedisURLs {
		want := test.want
		if want.network == "" {
			want.network = "tcp"
		}
		if want.addrs == nil {
			want.addrs = []string{"localhost:6379"}
		}
		if want.protocol == 0 {
			want.protocol = 2
		}
		if want.socketTimeout == 0 {
			want.socketTimeout = 5 * time.Second
		}
		if want.connectTimeout == 0 {
			want.connectTimeout = want.socketTimeout
		}
		switch want.healthCheck {
		case 0:
			want.healthCheck = 10 * time.Second
		case -1:
			want.healthCheck = 0
		}
		got, err := parseRedisURL(test.url)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s:\ngot  %+v, %v\nwant %+v", test.url, got, err, want)
		}
		if b := (&Bus{URL: test.url}); err == nil {
			if _, err := b.newTransport(); err != nil {
				t.Errorf("%s: a bus says %v", test.url, err)
			}
		}
	}
}

// Every error, whole, since a part of it could be a password.
var badRedisURLs = []struct{ url, want string }{
	{"", "it has no scheme, such as redis://"},
	{"localhost:6379", "it has no scheme, such as redis://"},
	{"http://localhost", `the scheme "http" isn't one of redis, rediss, valkey, valkeys, unix, redis+sentinel and rediss+sentinel`},

	{"redis://[::1", "the '[' has no ']'"},
	{"redis://[]", "an IPv6 host stands in brackets, as in [::1] or [::1]:6379"},
	{"redis://[::1]6379", "an IPv6 host stands in brackets, as in [::1] or [::1]:6379"},
	{"redis://::1", "an IPv6 host stands in brackets, as in [::1] or [::1]:6379"},
	{"redis://fe80::1:6379", "an IPv6 host stands in brackets, as in [::1] or [::1]:6379"},
	{"redis://a,,b", "a host is missing beside a comma"},
	{"redis://a,", "a host is missing beside a comma"},
	{"redis://a,:1", "a host is missing beside a comma"},
	{"redis://localhost\n", "a host has white space or a control character in it"},
	{"redis://a, b", "a host has white space or a control character in it"},
	{"redis://a%00", "a host has white space or a control character in it"},
	{"redis://localhost:6379\n", "a port must be a number from 1 to 65535"},
	{"redis://localhost:0", "a port must be a number from 1 to 65535"},
	{"redis://localhost:65536", "a port must be a number from 1 to 65535"},
	{"redis://localhost:-1", "a port must be a number from 1 to 65535"},
	{"redis://:secret", "a port must be a number from 1 to 65535"},
	{"redis://user:secret", "a port must be a number from 1 to 65535"},

	{"redis://localhost/one", "the path must be a database's number, as in redis://host/0"},
	{"redis://localhost/-1", "the path must be a database's number, as in redis://host/0"},
	{"redis://localhost/0/1", "the path must be a database's number, as in redis://host/0"},
	{"redis+sentinel://localhost/m/one", "the path must be a database's number, as in redis://host/0"},
	{"redis+sentinel://localhost", "it lacks the name of the master, as in redis+sentinel://host:26379/mymaster"},
	{"redis+sentinel://localhost//0", "it lacks the name of the master, as in redis+sentinel://host:26379/mymaster"},
	{"unix://", "it lacks the socket's path, as in unix:///run/redis.sock"},
	{"unix:///", "it lacks the socket's path, as in unix:///run/redis.sock"},
	{"unix://run/redis.sock", "a socket's path must be absolute, with three slashes: unix:///run/redis.sock"},

	{"redis://user:sec/ret@localhost", "a '/', '?' or '#' in a user name or a password must be written %2F, %3F or %23"},
	{"redis://user:sec?ret@localhost", "a '/', '?' or '#' in a user name or a password must be written %2F, %3F or %23"},
	{"redis://user:sec#ret@localhost", "a '/', '?' or '#' in a user name or a password must be written %2F, %3F or %23"},
	{"redis://user:123/secret@localhost", "a '/', '?' or '#' in a user name or a password must be written %2F, %3F or %23"},
	{"redis://user:123?secret@localhost", "a '/', '?' or '#' in a user name or a password must be written %2F, %3F or %23"},
	{"redis://localhost#top", "a '/', '?' or '#' in a user name or a password must be written %2F, %3F or %23"},

	{"redis://localhost?client_nam=a", `there is no option "client_nam"; did you mean client_name? ` + allRedisOptions},
	{"redis://localhost?sockettimeout=1", `there is no option "sockettimeout"; did you mean socket_timeout? ` + allRedisOptions},
	{"redis://localhost?Protocol=3", `there is no option "Protocol"; did you mean protocol? ` + allRedisOptions},
	{"redis://localhost?decode_responses=True", `there is no option "decode_responses" ` + allRedisOptions},
	{"redis://localhost?db=1&db=1", "db= stands there twice"},
	{"redis://localhost?db=one", `db= must be a number, not "one"`},
	{"redis://localhost?db=-1", `db= must be a number, not "-1"`},
	{"redis://localhost?protocol=4", `protocol= must be 2 or 3, not "4"`},
	{"redis://localhost?protocol", `protocol= must be 2 or 3, not ""`},
	{"redis://localhost?sharded=maybe", `sharded= must be true or false, not "maybe"`},
	{"redis://localhost?socket_timeout=soon", `socket_timeout= must be a number of seconds over 0 to 86400, not "soon"`},
	{"redis://localhost?socket_timeout=0", `socket_timeout= must be a number of seconds over 0 to 86400, not "0"`},
	{"redis://localhost?socket_timeout=1e-12", `socket_timeout= must be a number of seconds over 0 to 86400, not "1e-12"`},
	{"redis://localhost?socket_connect_timeout=-1", `socket_connect_timeout= must be a number of seconds over 0 to 86400, not "-1"`},
	{"redis://localhost?socket_connect_timeout=nan", `socket_connect_timeout= must be a number of seconds over 0 to 86400, not "nan"`},
	{"redis://localhost?health_check_interval=inf", `health_check_interval= must be a number of seconds from 0 to 86400, not "inf"`},
	{"redis://localhost?health_check_interval=86401", `health_check_interval= must be a number of seconds from 0 to 86400, not "86401"`},

	{"redis://localhost?ssl_ca_certs=/ca.pem", "ssl_ca_certs= is for TLS: the URL must begin with rediss://"},
	{"rediss://localhost?ssl_cert_reqs=never", `ssl_cert_reqs= must be required, optional or none, not "never"`},
	{"rediss://localhost?ssl_check_hostname=2", `ssl_check_hostname= must be true or false, not "2"`},
	{"rediss://localhost?ssl_keyfile=/k.pem", "ssl_keyfile= needs ssl_certfile="},
	{"redis://localhost?sentinel_password=a", "sentinel_password= is for redis+sentinel://"},
	{"redis+sentinel://localhost/m?sharded=1", "sharded= is for a Redis Cluster, which has no sentinels"},
	{"unix:///s?sharded=1", "sharded= is for a Redis Cluster, which is on no Unix socket"},
}

var allRedisOptions = "(the options are " + strings.Join(redisOptions, ", ") + ")"

func TestRedisURLErrors(t *testing.T) {
	for _, test := range badRedisURLs {
		_, err := parseRedisURL(test.url)
		if got, want := errorText(err), "autobus: bad Redis URL: "+test.want; got != want {
			t.Errorf("%s:\ngot  %s\nwant %s", test.url, got, want)
		}
		if _, err := newRedis(test.url); err == nil {
			t.Errorf("%s: newRedis takes it", test.url)
		}
	}
}
