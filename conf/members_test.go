package conf

import "testing"

func TestWhatIsAdvertisedMeansTheSameEverywhere(t *testing.T) {
	for _, c := range []struct{ advertise, listen, want []string }{
		{nil, []string{"127.0.0.1:2379"}, nil},
		{nil, []string{":2379", "0.0.0.0:2379", "[::]:2379", "localhost:2379"}, nil},
		{nil, []string{"10.0.0.1:0"}, nil},
		{nil, []string{":2379", "10.0.0.1:2379", "h:2380"}, []string{"10.0.0.1:2379", "h:2380"}},
		{[]string{"lb:2379"}, []string{"10.0.0.1:2379"}, []string{"lb:2379"}},
		{[]string{"127.0.0.1:1"}, []string{"127.0.0.1:1"}, []string{"127.0.0.1:1"}},
	} {
		equal(t, (&Config{Advertise: c.advertise, Listen: c.listen}).Advertised(), c.want)
	}
}
